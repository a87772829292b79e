// A demo's controls, read-out and picture: in JupyterLab an anywidget, on the course's pages a script of their own.
// Plain elements (range, radio, select, button) do the work: they have names, states and keys by themselves.

// root: an empty element. spec: {id, name, question, controls: [{name, kind, label, help, texts, index}], run, width,
// height}. on: {move(indices), run(), stop(), reset()}. Gives the functions that show what was computed.
function explorerView(root, spec, on) {
  const QUIET = 600; // milliseconds without a change before the live region speaks
  const FEW = 4; // choices that stand side by side; more are a list
  const SMALLEST = 120; // height of the picture that must scroll rather than shrink
  const state = { indices: {}, readout: "", refusal: "", status: "", dead: "", running: false };
  const inputs = [];

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== undefined && value !== false && value !== "") node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  function moved(control, index) {
    if (state.indices[control.name] === index) return;
    state.indices = { ...state.indices, [control.name]: index };
    on.move(state.indices);
  }

  // what every kind gives: its node, and how to put it at an index
  function slider(control, id) {
    const input = make("input", {
      id, class: "mlk-control", type: "range", min: 0, max: control.texts.length - 1, step: 1, title: control.help,
      autocomplete: "off",
    });
    const output = make("output", { class: "mlk-value", for: id, "aria-hidden": "true" }); // the slider says it
    const show = (index) => {
      input.value = index;
      output.textContent = control.texts[index];
      input.setAttribute("aria-valuetext", control.texts[index]);
    };
    input.addEventListener("input", () => {
      show(Number(input.value));
      moved(control, Number(input.value));
    });
    inputs.push(input);
    return { show, node: make("div", { class: "mlk-field" }, make("label", { for: id }, control.label), input, output) };
  }

  function list(control, id) {
    const input = make("select", { id, class: "mlk-control", title: control.help, autocomplete: "off" });
    input.append(...control.texts.map((text, index) => make("option", { value: index }, text)));
    input.addEventListener("change", () => moved(control, Number(input.value)));
    inputs.push(input);
    const show = (index) => { input.value = index; };
    return { show, node: make("div", { class: "mlk-field" }, make("label", { for: id }, control.label), input) };
  }

  function buttons(control, id) {
    const radios = control.texts.map((text, index) => {
      const key = `${id}-${index}`;
      const input = make("input", {
        id: key, class: "mlk-control", type: "radio", name: id, value: index, autocomplete: "off",
      });
      input.addEventListener("change", () => moved(control, index));
      inputs.push(input);
      return [input, make("label", { for: key }, text)];
    });
    const show = (index) => { radios[index][0].checked = true; };
    const row = make("span", { class: "mlk-buttons" }, ...radios.flat());
    const title = control.help;
    const node = make("fieldset", { class: "mlk-field", title }, make("legend", {}, control.label), row);
    return { show, node };
  }

  const knobs = spec.controls.map((control, number) => {
    const kind = control.kind === "steps" ? slider : control.texts.length <= FEW ? buttons : list;
    return [control, kind(control, `${spec.id}-${number}`)];
  });
  const reset = make("button", { class: "mlk-reset", type: "button", title: "All controls back to where they began" });
  reset.append("Reset");
  reset.addEventListener("click", () => on.reset());
  inputs.push(reset);

  // one button for both, so that whoever pressed it is still on it
  const run = make("button", { class: "mlk-run", type: "button" });
  run.addEventListener("click", () => {
    if (run.getAttribute("aria-disabled") !== "true") (state.running ? on.stop : on.run)();
  });
  const progress = make("progress", { class: "mlk-progress", max: 1, value: 0, "aria-label": "progress of the run" });
  const status = make("span", { class: "mlk-status" });
  if (spec.run) inputs.push(run);

  const longest = Math.max(...spec.controls.map((control) => control.label.length));
  const fields = make("div", { class: "mlk-controls" }, ...knobs.map(([, knob]) => knob.node));
  const sliders = spec.controls.filter((control) => control.kind === "steps");
  const widest = Math.max(1, ...sliders.flatMap((control) => control.texts.map((text) => text.length)));
  fields.style.setProperty("--mlk-label", `${longest * 0.54 + 0.3}em`); // of one width: tracks stand below each other
  fields.style.setProperty("--mlk-value", `${widest + 0.5}ch`);
  const note = make("p", { class: "mlk-note", hidden: true });
  const readout = make("p", { class: "mlk-readout" });
  const refusal = make("p", { class: "mlk-refusal", hidden: true });
  const picture = make("img", { class: "mlk-picture", alt: "", width: spec.width, height: spec.height });
  picture.decoding = "sync"; // else the old one is gone before the new one is there
  picture.style.aspectRatio = `${spec.width} / ${spec.height}`;
  const live = make("p", { class: "mlk-live", role: "status", "aria-live": "polite" });
  const figure = make("figure", { class: "mlk-figure" }, picture);
  const view = make("div", { class: "mlk-demo", role: "group", "aria-labelledby": `${spec.id}-question` });
  view.append(make("p", { class: "mlk-question", id: `${spec.id}-question` }, spec.question), note, fields);
  if (spec.run) view.append(make("div", { class: "mlk-running" }, run, reset, progress, status));
  else fields.append(reset);
  view.append(make("div", { class: "mlk-said" }, readout, refusal), figure, live);
  root.append(view);

  // in a notebook a plain key is a command: arrows leave the cell, "a" adds one. Here it belongs to the control.
  view.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });

  let timer;
  function speak(wait) {
    const words = () => {
      const said = state.refusal ? [state.refusal] : [state.status, state.readout];
      const text = [state.dead, ...said].filter(Boolean).join(". ");
      if (live.textContent !== text) live.textContent = text;
    };
    clearTimeout(timer);
    if (wait) timer = setTimeout(words, QUIET);
    else words();
  }

  function enable() {
    for (const input of inputs) input.disabled = Boolean(state.dead);
    view.classList.toggle("mlk-is-dead", Boolean(state.dead));
    run.setAttribute("aria-disabled", String(Boolean(state.refusal) && !state.running)); // it keeps the keyboard
    run.textContent = state.running ? "■ Stop" : "▶ Train";
    run.setAttribute("aria-label", state.running ? "Stop" : "Train");
    run.title = state.running ? "End the training here" : "Compute what the picture predicts";
    view.classList.toggle("mlk-is-running", state.running);
  }

  // Lines that have once been needed are kept free, so that nothing below jumps from setting to setting.
  function keep(node) {
    const text = node.textContent;
    if (!text || !node.clientWidth) return;
    node.textContent = `${text} and some more`; // the next number may be longer
    const high = node.scrollHeight;
    node.textContent = text;
    if (high > (parseFloat(node.style.minHeight) || 0)) node.style.minHeight = `${high}px`;
  }

  // The picture fills the column, but question, controls, read-out and picture stay on the screen together.
  let known = 0;
  function fit() {
    const wide = view.clientWidth;
    if (!wide) return;
    if (wide !== known) for (const node of [readout, status]) node.style.minHeight = "";
    known = wide;
    [readout, status].forEach(keep);
    const rest = view.offsetHeight - figure.offsetHeight;
    const port = root.closest(".jp-WindowedPanel-outer")?.clientHeight || Infinity; // what JupyterLab leaves for cells
    const high = Math.max(SMALLEST, Math.min(port, window.innerHeight) - rest - 20);
    const width = `${Math.min(wide, Math.floor((high * spec.width) / spec.height))}px`;
    if (picture.style.width !== width) picture.style.width = width;
  }
  const watch = new ResizeObserver(fit);
  watch.observe(view);
  window.addEventListener("resize", fit);

  function indices(values) {
    for (const [control, knob] of knobs) {
      const index = values[control.name] ?? control.index;
      if (state.indices[control.name] !== index) knob.show(index);
    }
    state.indices = Object.fromEntries(spec.controls.map(({ name, index }) => [name, values[name] ?? index]));
  }
  indices({});
  enable();

  return {
    indices,
    show({ src, alt, readout: text = "" }) {
      if (src && picture.getAttribute("src") !== src) picture.src = src;
      picture.alt = alt;
      const first = !readout.textContent && !live.textContent;
      state.readout = readout.textContent = text;
      keep(readout);
      speak(!first);
    },
    refuse(text) {
      if (state.refusal === text) return;
      state.refusal = refusal.textContent = text;
      refusal.hidden = !text;
      view.classList.toggle("mlk-is-refused", Boolean(text));
      enable();
      speak(true);
    },
    running(is) {
      state.running = is;
      enable();
    },
    progress(done, look = "") {
      progress.value = done;
      status.dataset.look = progress.dataset.look = look;
    },
    status(text) {
      if (state.status === text) return;
      state.status = status.textContent = status.title = text;
      keep(status);
      speak(true);
    },
    note(text) {
      if (!state.dead) note.textContent = text;
      note.hidden = !note.textContent;
    },
    dead(text) {
      if (state.dead === text) return;
      state.dead = note.textContent = text;
      note.hidden = !text;
      enable();
      speak(true);
    },
    remove() {
      clearTimeout(timer);
      watch.disconnect();
      window.removeEventListener("resize", fit);
      view.remove();
    },
  };
}

// --- for anywidget alone: a page's script ends here (page_script in explorer.py) ---

const RUN_AGAIN = "Run this cell to move the sliders.";

function address(frame) {
  const bytes = new Uint8Array(frame.buffer ?? frame, frame.byteOffset ?? 0, frame.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return `data:image/png;base64,${btoa(text)}`;
}

function render({ model, el }) {
  const id = `mlk-${Math.random().toString(36).slice(2, 10)}`;
  const view = explorerView(el, { ...model.get("spec"), id }, {
    // Jupyter's own throttle: the next change goes only when the kernel has answered the last, and then the newest
    move(indices) {
      model.set("indices", indices);
      model.save_changes();
    },
    run: () => model.send({ do: "run" }),
    stop: () => model.send({ do: "stop" }),
    reset: () => model.send({ do: "reset" }),
  });
  const shows = {
    frame: () => model.get("frame")?.byteLength && view.show({
      src: address(model.get("frame")), alt: model.get("alt"), readout: model.get("readout"),
    }),
    indices: () => view.indices(model.get("indices")),
    refusal: () => view.refuse(model.get("refusal")),
    running: () => view.running(model.get("running")),
    progress: () => view.progress(...model.get("progress")),
    status: () => view.status(model.get("status")),
    note: () => view.note(model.get("note")),
  };
  for (const [name, show] of Object.entries(shows)) {
    show();
    model.on(`change:${name}`, show);
  }
  model.on("change:readout", shows.frame);
  model.on("change:alt", shows.frame);

  // While this lives, the still picture that stands in the same output for other viewers is not shown.
  const hide = document.createElement("style");
  const still = `.mlk-still[data-demo="${model.get("spec").id}"]`;
  hide.textContent = `${still}, .jp-OutputArea-child:has(${still}) { display: none !important; }`;
  document.head.append(hide);

  // After a restart nobody answers: Jupyter says so to its views, one of which is `this` of what a model calls.
  const gone = new Set(["restarting", "autorestarting", "dead", "terminating"]);
  const kernel = model.widget_manager?.kernel;
  const heard = (_, status) => gone.has(status) && view.dead(RUN_AGAIN);
  const lost = () => view.dead(RUN_AGAIN);
  model.on("comm_live_update", function () { view.dead(this?.model?.comm_live === false ? RUN_AGAIN : ""); });
  kernel?.statusChanged?.connect(heard);
  kernel?.disposed?.connect(lost);
  if (el.classList.contains("jupyter-widgets-disconnected")) lost(); // restored from a file

  return () => {
    kernel?.statusChanged?.disconnect(heard);
    kernel?.disposed?.disconnect(lost);
    hide.remove();
    view.remove();
  };
}

export default { render };
