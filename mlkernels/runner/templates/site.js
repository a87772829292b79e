// The demos of a page, moved by its own script: each setting has a picture, and the table beside it says which.
(function () {
  function demo(place) {
    const table = JSON.parse(place.querySelector("script").textContent);
    const names = table.controls.map((control) => control.name);
    const home = table.controls.map((control) => control.index);
    const address = (file) => `${table.folder}/${file}`;
    const kept = new Map(); // pictures that are about to be asked for, decoded
    let at = home;
    let later; // the timer of what is fetched beforehand

    function fetched(file) {
      if (!file || kept.has(file)) return;
      const picture = new Image();
      picture.src = address(file);
      picture.decode().catch(() => {});
      kept.set(file, picture);
      if (kept.size > 60) kept.delete(kept.keys().next().value);
    }

    // what one more move of a control can show; first of the one that is at work, and never before its own picture
    function neighbours(moved) {
      const order = home.map((_, which) => which).sort((a, b) => (b === moved) - (a === moved));
      const points = order.flatMap((which) => [1, -1].map((step) => {
        const wanted = at.map((index, i) => (i === which ? index + step : index));
        return table.frames[allowed(wanted, which)];
      }));
      const files = points.filter(Boolean).map(([file]) => file);
      clearTimeout(later);
      const next = () => {
        if (!files.length) return;
        files.splice(0, 2).forEach(fetched);
        later = setTimeout(next, 15);
      };
      later = setTimeout(next, 30);
    }

    // the settings with a picture that are nearest to these: the control that was moved stays where it is
    function allowed(wanted, moved) {
      if (table.frames[wanted] || moved < 0) return wanted;
      const sets = table.together.filter((set) => set.includes(moved));
      const inside = (set) => wanted.map((index, i) => (set.includes(i) ? index : home[i]));
      const changes = (point) => point.filter((index, i) => index !== wanted[i]).length;
      return sets.map(inside).sort((a, b) => changes(a) - changes(b))[0] ?? wanted;
    }

    function show(moved) {
      const [file, alt, said] = table.frames[at];
      view.refuse(file ? "" : said);
      if (file) view.show({ src: address(file), alt, readout: said });
      view.progress(0);
      view.status("");
      neighbours(moved);
    }

    function go(point, moved = 0) {
      at = point;
      view.indices(Object.fromEntries(names.map((name, i) => [name, at[i]])));
      show(moved);
    }

    const view = explorerView(place.querySelector(".demo-view"), { ...table, id: `view-${table.name}` }, {
      move(indices) {
        const wanted = names.map((name) => indices[name]);
        const moved = wanted.findIndex((index, i) => index !== at[i]);
        go(allowed(wanted, moved), moved);
      },
      reset: () => go(home),
      run() {
        const row = table.runs[at];
        if (!row) return view.status("This training is in the notebook alone.");
        const [file, alt, said] = row;
        view.show({ src: address(file), alt, readout: table.frames[at][2] });
        view.progress(1, "success");
        return view.status(said);
      },
      stop() {},
    });
    // what stays of the picture is below what moves, so that each setting is a small file
    place.querySelector("img").style.background = `url("${address(table.ground)}") 0 0 / 100% 100% no-repeat`;
    show(0);
  }

  for (const place of document.querySelectorAll(".demo")) {
    const twin = document.getElementById(`twin-${place.id}`);
    demo(place);
    if (twin) twin.open = false;
    place.querySelector(".widget-note")?.remove();
  }
  // on paper nothing moves: the still pictures take the demos' place
  const twins = [...document.querySelectorAll("details.twin")];
  window.addEventListener("beforeprint", () => {
    for (const twin of twins.filter((each) => !each.open)) {
      twin.dataset.folded = "yes";
      twin.open = true;
    }
  });
  window.addEventListener("afterprint", () => {
    for (const twin of twins.filter((each) => each.dataset.folded)) {
      delete twin.dataset.folded;
      twin.open = false;
    }
  });
})();
