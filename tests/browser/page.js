// What the tests ask of JupyterLab's page: its own application object (--LabApp.expose_app_in_browser) tells about notebook and kernel.

window.lesson = (() => {
  const WIDGET = "application/vnd.jupyter.widget-view+json";
  const panel = () => window.jupyterapp.shell.currentWidget;
  const code = () => panel().content.widgets.filter((cell) => cell.model.type === "code");
  const find = (id) => panel().content.widgets.findIndex((cell) => cell.model.id === id);
  const watched = new WeakSet();
  let kernelEnded = () => {};

  const moving = () => Boolean(document.querySelector(".sl-view .sl-leave"))
    || document.getAnimations().some(({ effect, playState }) => playState === "running" && effect?.target?.closest(".sl-view"));

  /** The texts of an SVG that lie outside its frame, in part or whole. */
  function outOfPicture(picture) {
    const frame = picture.getBoundingClientRect();
    const out = ({ left, right, top, bottom, width }) =>
      width && (left < frame.left - 1 || right > frame.right + 1 || top < frame.top - 1 || bottom > frame.bottom + 1);
    return [...picture.querySelectorAll("text")].filter((text) => out(text.getBoundingClientRect())).map((text) => text.textContent);
  }

  /** Resolves with "ran", "kernel ended" or "too late", whichever comes first. */
  function raced(running, seconds) {
    const context = panel().sessionContext;
    const ended = new Promise((resolve) => (kernelEnded = () => resolve("kernel ended")));
    if (!watched.has(context)) {
      watched.add(context);
      context.statusChanged.connect((_, status) => ["autorestarting", "dead", "terminating"].includes(status) && kernelEnded());
    }
    const late = new Promise((resolve) => setTimeout(() => resolve("too late"), seconds * 1000));
    return Promise.race([running.then(() => "ran"), ended, late]);
  }

  return {
    /** Whether a notebook is open, shown, and its kernel is there. */
    ready: () => {
      const shown = window.jupyterapp?.shell?.currentWidget;
      return Boolean(shown?.content?.model?.cells?.length && shown.sessionContext?.session?.kernel?.connectionStatus === "connected"
        && shown.content.widgets.length === shown.content.model.cells.length);
    },
    runAll: (seconds) => raced(window.jupyterapp.commands.execute("notebook:run-all-cells"), seconds),
    /** Runs one cell, as Ctrl-Enter does. */
    run: (id, seconds) => {
      panel().content.deselectAll();
      panel().content.activeCellIndex = find(id);
      return raced(window.jupyterapp.commands.execute("notebook:run-cell"), seconds);
    },
    busy: () => panel().sessionContext.session?.kernel?.status !== "idle",
    cells: () => code().map(({ model }) => ({
      id: model.id, source: model.sharedModel.getSource(), count: model.executionCount, outputs: model.outputs.toJSON(),
    })),
    theme: (name) => window.jupyterapp.commands.execute("apputils:change-theme", { theme: name }),
    scroller: () => panel().content.node.querySelector(".jp-WindowedPanel-outer") || panel().content.node,
    /** How far down the last cell reaches; behind it JupyterLab lets people scroll into nothing. */
    end: () => {
      const box = window.lesson.scroller();
      const last = panel().content.widgets.at(-1).node.getBoundingClientRect();
      return Math.min(box.scrollHeight, last.bottom - box.getBoundingClientRect().top + box.scrollTop);
    },
    node: (id) => panel().content.widgets[find(id)].node,

    /** What isn't drawn as it should be, in words: each widget of the notebook's outputs must be there, seen, and not tiny. */
    undrawn: () => {
      const wrong = [];
      for (const cell of code()) {
        const id = cell.model.id;
        const wanted = cell.model.outputs.toJSON().filter((output) => output.data && WIDGET in output.data).length;
        const drawn = [...cell.node.querySelectorAll(".sl-quiz, .sl-view")];
        if (drawn.length !== wanted) wrong.push(`${id}: ${drawn.length} of ${wanted} widgets drawn`);
        for (const widget of drawn) {
          const { width, height } = widget.getBoundingClientRect();
          if (width < 200 || height < 60 || getComputedStyle(widget).visibility !== "visible") wrong.push(`${id}: a widget of ${width} x ${height}`);
          if (widget.classList.contains("sl-view") && !widget.querySelector("svg text")) wrong.push(`${id}: an empty picture`);
        }
        const said = cell.outputArea?.node.innerText.match(/(Error (displaying|creating|rendering) widget|Loading widget|Click to show javascript error)[^\n]*/);
        if (said) wrong.push(`${id}: ${said[0]}`);
      }
      return wrong;
    },

    /** Whether a picture is on its way from one moment to the next: a shape moves, or one that has faded is still to be taken out. */
    moving,
    outOfPicture,

    /** Text that can't be read whole at this width of the window; null while a picture moves, in the same breath, since it may begin at any time. */
    cutOff: () => {
      if (moving()) return null;
      const wrong = [];
      for (const cell of panel().content.widgets) {
        const id = cell.model.id;
        for (const box of cell.node.querySelectorAll(".cm-scroller")) {
          if (box.scrollWidth > box.clientWidth + 1) wrong.push(`${id}: a code line is ${box.scrollWidth - box.clientWidth} px too long`);
        }
        for (const box of cell.node.querySelectorAll(".jp-OutputArea-output, .jp-RenderedMarkdown")) {
          if (box.scrollWidth > box.clientWidth + 1) wrong.push(`${id}: ${box.className} is ${box.scrollWidth - box.clientWidth} px too wide`);
        }
        for (const picture of cell.node.querySelectorAll(".sl-view > svg")) {
          for (const text of outOfPicture(picture)) wrong.push(`${id}: "${text}" reaches out of its picture`);
        }
      }
      return wrong;
    },
  };
})();
