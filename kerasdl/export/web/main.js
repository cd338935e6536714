// Puts the page together: what the model is, where it runs, and the panels that apply to it.

/** A model that the panels keep while another backend is chosen; its runs wait for each other. */
function steadyModel(onRun) {
  let opened = null, failure = null, last = Promise.resolve();
  const next = (action) => {
    const result = last.then(action);
    last = result.catch(() => {});
    return result;
  };
  return {
    get milliseconds() { return opened?.milliseconds ?? null; },
    get backend() { return opened?.backend ?? null; },
    close: () => next(() => { opened?.close(); opened = null; }),
    open: (bytes, accelerator) => next(async () => {
      opened?.close();
      opened = null;
      try {
        opened = await openModel(bytes, accelerator);
      } catch (error) {
        failure = error;
        throw error;
      }
    }),
    run: (signature, inputs) => next(async () => {
      if (!opened) throw failure;
      const outputs = await opened.run(signature, inputs);
      onRun();
      return outputs;
    }),
  };
}

function main() {
  const root = document.querySelector("main");
  const status = document.getElementById("status");
  const latency = document.getElementById("latency");
  document.getElementById("name").textContent = description.name;
  document.title = description.name;
  const about = [`${description.model}, ${description.paper}`, `task: ${description.task}`,
    `trained on ${description.dataset}`, `file: ${description.file}`];
  document.getElementById("about").textContent = about.join(" · ");
  const model = steadyModel(() => {
    latency.textContent = `${model.milliseconds.toFixed(1)} ms, ${model.backend}`;
  });
  for (const [applies, panel] of PANELS) {
    if (!applies(description)) continue;
    const section = element("section");
    root.append(section);
    try {
      panel(section, model, description);
    } catch (error) {
      showError(section, sentence(error));
    }
  }
  if (!root.children.length) {
    const text = "This page has no panel for the inputs of this model.";
    root.append(element("p", {className: "note"}, text));
  }
  const rows = description.figures.map(([name, value]) =>
    element("tr", {},
      element("th", {scope: "row"}, String(name)), element("td", {}, String(value))));
  document.getElementById("figures").append(...rows);
  const backend = document.getElementById("backend");
  navigator.gpu?.requestAdapter().then((adapter) => {
    if (adapter) backend.append(element("option", {value: "webgpu"}, "WebGPU"));
  }).catch(() => {});
  const bytes = bytesOf(document.getElementById("model").textContent);
  const open = async () => {
    status.textContent = "Loading the model …";
    latency.textContent = "–";
    showError(status.parentElement, "");
    try {
      await model.open(bytes, backend.value);
      const wanted = backend.value === model.backend;
      status.textContent = wanted
        ? "Ready."
        : `Ready; ${backend.value} cannot run all of it, ${model.backend} does.`;
      document.body.dataset.state = "ready";
    } catch (error) {
      status.textContent = "";
      showError(status.parentElement, sentence(error));
      document.body.dataset.state = "failed";
    }
  };
  backend.onchange = open;
  open();
}

main();
