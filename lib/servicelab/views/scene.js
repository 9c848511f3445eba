// The renderer that every view shares: a scene is a tree of [tag, key, attributes, children]; where a shape with the same key was drawn before,
// only what differs is written, so that it glides instead of blinking, and fifty pods stay smooth.

const SVG = "http://www.w3.org/2000/svg";
const LEAVE_MS = 500;

/** Make `parent`'s children what `nodes` says. Attributes tx and ty move a group through its style, which the style sheet lets glide. */
function patch(parent, nodes) {
  const old = new Map();
  const counts = new Map();
  const nameOf = (tag, key) => {
    if (key) return key;
    const count = counts.get(tag) || 0;
    counts.set(tag, count + 1);
    return `${tag}#${count}`;
  };
  for (const child of parent.childNodes) {
    if (child.slName !== undefined && !child.slLeaving) old.set(child.slName, child);
  }
  let before = firstStaying(parent.firstChild);
  for (const node of nodes) {
    let shape;
    if (typeof node === "string") {
      const name = nameOf("text()", "");
      shape = old.get(name);
      if (!shape) {
        shape = document.createTextNode(node);
        shape.slName = name;
      } else if (shape.data !== node) shape.data = node;
      old.delete(name);
    } else {
      const [tag, key, attributes, children] = node;
      const name = nameOf(tag, key);
      shape = old.get(name);
      if (shape && shape.localName !== tag) shape = undefined;
      if (!shape) {
        shape = document.createElementNS(SVG, tag);
        shape.slName = name;
        shape.slAttributes = {};
        if (key) shape.classList.add("sl-enter");
      } else old.delete(name);
      dress(shape, attributes, key);
      patch(shape, children);
    }
    if (shape !== before) parent.insertBefore(shape, before);
    else before = firstStaying(before.nextSibling);
  }
  for (const [name, shape] of old) leave(shape, name);
}

function firstStaying(node) {
  while (node && (node.slLeaving || node.slName === undefined)) node = node.nextSibling;
  return node;
}

function dress(shape, attributes, key) {
  const had = shape.slAttributes;
  for (const name of Object.keys(had)) if (!(name in attributes)) shape.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (had[name] === value || name === "tx" || name === "ty") continue;
    if (name === "class") shape.setAttribute("class", key && shape.classList.contains("sl-enter") ? `${value} sl-enter` : value);
    else shape.setAttribute(name, value);
  }
  if ("tx" in attributes || "ty" in attributes) {
    if (had.tx !== attributes.tx || had.ty !== attributes.ty) {
      shape.style.transform = `translate(${attributes.tx || 0}px, ${attributes.ty || 0}px)`;
    }
    if (key) shape.style.transition = "transform .5s ease, opacity .4s ease";
  }
  shape.slAttributes = attributes;
}

function leave(shape, name) {
  const isGroup = shape.localName === "g" && !name.includes("#");
  if (!isGroup) return shape.remove();
  shape.slLeaving = true;
  shape.classList.remove("sl-enter");
  shape.classList.add("sl-leave");
  setTimeout(() => shape.remove(), LEAVE_MS);
}

/** Wear the theme of the page: JupyterLab says which, elsewhere the system does. Returns how to stop. */
function followTheme(root) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const said = document.body.dataset.jpThemeLight;
    const isDark = said === undefined ? document.body.classList.contains("vscode-dark") || dark.matches : said === "false";
    root.dataset.theme = isDark ? "dark" : "light";
  };
  apply();
  const watcher = new MutationObserver(apply);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  dark.addEventListener("change", apply);
  return () => {
    watcher.disconnect();
    dark.removeEventListener("change", apply);
  };
}

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Mount a view: the picture and its notice. `scene()` may be given to draw something else than the model's scene. Returns its parts. */
function mount({ model, el }, { pick = () => model.get("scene"), drawn = () => {} } = {}) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("role", "img");
  const notice = make("p", { class: "sl-notice", role: "status" });
  // Without this, JupyterLab would take arrow keys and Enter in our buttons for its own shortcuts.
  const root = make("div", { class: "sl-scene sl-view", "data-lm-suppress-shortcuts": "true" }, notice, svg);
  let frame = 0;
  const draw = () => {
    frame = 0;
    const scene = pick();
    svg.setAttribute("viewBox", `0 0 ${scene.width} ${scene.height}`);
    root.style.maxWidth = `${scene.width}px`;
    svg.setAttribute("aria-label", scene.label);
    patch(svg, scene.children);
    drawn(svg, scene);
  };
  const redraw = () => {
    if (!frame) frame = requestAnimationFrame(draw); // however fast the cluster changes, once a frame, and never in a hidden tab
  };
  const tell = () => {
    notice.textContent = model.get("notice");
    notice.hidden = !notice.textContent;
  };
  const forgetTheme = followTheme(root);
  model.on("change:scene", redraw);
  model.on("change:notice", tell);
  el.append(root);
  tell();
  draw();
  // Python watches the cluster only while somebody looks.
  model.set("viewers", (model.get("viewers") || 0) + 1);
  model.save_changes();
  const unmount = () => {
    cancelAnimationFrame(frame);
    model.off("change:scene", redraw);
    model.off("change:notice", tell);
    forgetTheme();
    model.set("viewers", Math.max(0, (model.get("viewers") || 0) - 1));
    model.save_changes();
  };
  return { root, svg, notice, redraw, unmount };
}
