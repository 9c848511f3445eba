// Who answered: a button and a slider, and a dot for each request, from the client through the Service to the pod whose log has it.

const DOT_MS = 700;
const MOST_DOTS = 40; // more would be a blur, and slow

function render(context) {
  const { model } = context;
  const view = mount(context);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const button = make("button", { type: "button" });
  const slider = make("input", { type: "range", min: "1", max: "20", step: "1", "aria-label": "requests a second" });
  const shown = make("span");
  const controls = make("div", { class: "controls" }, button, make("label", {}, slider, shown));
  view.root.insertBefore(controls, view.svg);

  const tell = () => {
    const running = model.get("running");
    button.textContent = running ? "■ stop" : "▶ send requests";
    slider.value = String(Math.round(model.get("rate")));
    shown.textContent = `${Math.round(model.get("rate"))} requests a second`;
  };
  button.addEventListener("click", () => {
    model.set("running", !model.get("running"));
    model.save_changes();
    tell();
  });
  slider.addEventListener("input", () => {
    model.set("rate", Number(slider.value));
    model.save_changes();
    tell();
  });

  // The dots are drawn above the scene in a layer that the scene's own redrawing leaves alone.
  const layer = document.createElementNS(SVG, "g");
  layer.setAttribute("aria-hidden", "true");
  const place = (name) => {
    for (const [, key, attributes] of model.get("scene").children) if (key === name) return { x: attributes.tx || 0, y: attributes.ty || 0 };
    return undefined;
  };
  const fly = ([, uid, code]) => {
    if (calm.matches || document.hidden || layer.childElementCount >= MOST_DOTS) return;
    const client = place("client");
    const target = uid ? place(`pod:${uid}`) : undefined;
    if (!client || (uid && !target)) return;
    const y = client.y + 25;
    const stops = [[client.x + 86, y], [156, y], [352, y]];
    if (target) stops.push([target.x, target.y]);
    const dot = document.createElementNS(SVG, "g");
    const circle = document.createElementNS(SVG, code ? "circle" : "path");
    circle.setAttribute("class", "dot");
    if (code) circle.setAttribute("r", "6");
    else circle.setAttribute("d", "M-6-6L6 6M6-6L-6 6"), circle.setAttribute("stroke", "var(--bad)"), circle.setAttribute("stroke-width", "3");
    dot.append(circle);
    if (!svgHasLayer()) view.svg.append(layer);
    layer.append(dot);
    const flight = dot.animate(
      stops.map(([x, y2]) => ({ transform: `translate(${x}px, ${y2}px)` })),
      { duration: DOT_MS, easing: "ease-in-out", fill: "forwards" },
    );
    flight.onfinish = () => dot.remove();
  };
  const svgHasLayer = () => layer.parentNode === view.svg && view.svg.lastChild === layer;
  let last = model.get("fresh").seq;
  const arrive = () => {
    const { seq, dots } = model.get("fresh");
    if (seq !== last) dots.forEach(fly);
    last = seq;
  };
  model.on("change:running", tell);
  model.on("change:rate", tell);
  model.on("change:fresh", arrive);
  tell();
  return () => {
    model.off("change:running", tell);
    model.off("change:rate", tell);
    model.off("change:fresh", arrive);
    view.unmount();
  };
}

export default { render };
