"""What every folder may use: files, argument checks, memory, intervals, words, progress, results, provenance.

What each kind of file on the disk promises. Each is written whole or stays as it was (`files`), but for pixels, which a
folder of a temporary name gets first. What is damaged is named in one line with status 2 and never used:

| file                        | by           | checksum and form         | if damaged | what goes on from it        |
|-----------------------------|--------------|---------------------------|------------|-----------------------------|
| state.json                  | nas search   | SHA-256, kind, schema     | aside      | from the last batch         |
| checkpoint.npz              | nas train    | SHA-256 over its arrays   | aside      | from the last epoch         |
| FILE.part, FILE.scores.part | nas compare  | SHA-256, kind, schema     | aside      | the next architecture       |
| result.json, all results    | results.save | SHA-256                   | stays      | nothing; nas train reads it |
| log.jsonl                   | both         | none, it is not read      | not read   | nothing                     |
| a checkpoint                | learners     | SHA-256 over its arrays   | aside      | from the last step          |
| NAME.history.json           | learners     | SHA-256, the run's losses | aside      | its measurements            |
| NAME/manifest.json          | data get     | SHA-256, kind, schema     | refused    | every load                  |
| NAME/{split}_labels.npy     | data get     | held against the manifest | refused    | every load                  |
| NAME/{split}_images.npy     | data get     | SHA-256 in the manifest   | see below  | every load                  |
| omniglot_28.npz             | omniglot     | SHA-256 over its arrays   | aside      | every load                  |
| NN_name.ipynb, executed     | run, sweep   | in its record             | run anew   | run --resume, a sweep       |
| claims.json, sweep.json     | run, sweep   | SHA-256                   | not read   | nothing                     |
| frames.json and pictures    | site         | SHA-256                   | drawn anew | the next site               |
| .mlkernels-export.json      | export       | SHA-256 of each file      | refused    | the next export there       |

"aside": it is kept as NAME.broken-N, and the same command, called again, begins anew without it (measurements: from the
checkpoint on). A dataset's file in a folder that is not ours stays there. "refused": it stays; of a dataset,
`mlkernels data get` then puts a whole copy there and keeps this one aside. Images are too many to be read at each load:
`mlkernels data verify` does that, and counts means and deviations again. What is whole, but of other settings, another
kind or version, is refused and stays.

Files from before there were checksums are read as far as their form is right: states of format 3, kept rows of format
2, checkpoints and manifests of format 1, results and omniglot_28.npz without "sha256". `checked` reads and writes JSON,
`checked_arrays` npz; no other reader of either is used for files.
"""
