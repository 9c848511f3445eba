// The packet's path: buttons and arrow keys go through the steps; each step is a scene of its own, between which the packet glides.

function render(context) {
  const { model } = context;
  let step = model.get("step");
  const scenes = model.get("scenes");
  const view = mount(context, { pick: () => (step ? scenes[step - 1] : model.get("scene")) });
  const where = make("span", { role: "status" });
  const back = make("button", { type: "button" }, "◀ back");
  const next = make("button", { type: "button" }, "next step ▶");
  const all = make("button", { type: "button" }, "all at once");

  const go = (to) => {
    step = Math.max(0, Math.min(scenes.length, to));
    // not `disabled`, which would take the focus from the button, and with it the arrow keys
    back.setAttribute("aria-disabled", step <= 1);
    next.setAttribute("aria-disabled", step === scenes.length);
    next.textContent = step ? "next step ▶" : "step by step ▶";
    all.setAttribute("aria-disabled", step === 0);
    where.textContent = step ? `step ${step} of ${scenes.length}` : `all ${scenes.length} steps`;
    view.redraw();
    if (model.get("step") !== step) {
      model.set("step", step);
      model.save_changes();
    }
  };
  back.addEventListener("click", () => step > 1 && go(step - 1));
  next.addEventListener("click", () => go(step + 1));
  all.addEventListener("click", () => go(0));
  view.root.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move || (move < 0 && step <= 1)) return;
    event.preventDefault();
    go(step + move);
  });
  view.root.insertBefore(make("div", { class: "controls" }, back, next, all, where), view.svg);
  go(step);
  return view.unmount;
}

export default { render };
