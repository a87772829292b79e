"""What every folder may use: files, argument checks, memory, intervals, words, progress, results, provenance.

What each kind of file on the disk promises. All are written whole or stay as they were (`files`), and what is damaged is
said in one line, with status 2, and never used. `aside` means: kept as NAME.broken-N, and the same command then begins
anew; what is whole, but of other settings or another version, is refused and stays where it is.

| file                          | by            | checksum and form                       | if damaged  | what resumes from it      |
|-------------------------------|---------------|-----------------------------------------|-------------|---------------------------|
| state.json                    | nas search    | SHA-256 of what it says, kind, schema   | aside       | the search, at its batch  |
| log.jsonl                     | search, train | none: written anew from the state       | not read    | nothing                   |
| result.json, all results      | `results`     | SHA-256 of what it says                 | stays       | nothing; train reads it   |
| FILE.part, FILE.scores.part   | nas compare   | SHA-256, kind, schema                   | aside       | the next architecture     |
| checkpoint.npz, of fit too    | nas train     | SHA-256 over arrays and settings, CRCs  | aside       | the epoch, the step       |
| NAME.history.json             | learners      | SHA-256, kind, schema, and the losses   | aside       | the measurements          |
| NAME/manifest.json            | data get      | SHA-256, kind, schema                   | data get    | nothing                   |
| NAME/{split}_labels.npy       | data get      | compared with the manifest when opened  | data get    | nothing                   |
| NAME/{split}_images.npy       | data get      | SHA-256 in the manifest: `data verify`  | data get    | nothing                   |
| omniglot_28.npz               | omniglot      | SHA-256 over arrays, CRCs               | aside       | nothing                   |
| NN_name.ipynb, executed       | run, sweep    | in its record                           | run anew    | run --resume, sweep       |
| claims.json, sweep.json       | run, sweep    | SHA-256 of what they say                | not read    | nothing: from notebooks   |
| demos/NAME/frames.json, *.webp| site          | SHA-256, and pictures named by theirs   | drawn anew  | the site                  |
| .mlkernels-export.json        | export        | SHA-256 of each file                    | stays       | the next export there     |

"data get" means: nothing is loaded, and `mlkernels data get NAME` puts a whole copy there and keeps this one aside.
Files of before there were checksums are read as far as their form is right: states of format 3, kept rows of format 2,
checkpoints and manifests of format 1, results without "sha256". `checked` reads and writes JSON of this sort,
`checked_arrays` npz files; `data verify` counts means and deviations again from the pixels.
"""
