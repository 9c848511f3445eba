// A quiz: a group of radio answers; arrows move, Enter or Space chooses, the reason of the chosen answer unfolds below it.
// The texts arrive as HTML that Python made from a quiz's own text, escaped but for code, em and strong.

function followTheme(root) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const body = document.body;
    const said = body.dataset.jpThemeLight; // JupyterLab says which theme it wears; elsewhere the system does
    const isDark = said === undefined ? body.classList.contains("vscode-dark") || dark.matches : said === "false";
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

function element(tag, attributes = {}, html = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.innerHTML = html;
  return made;
}

function render({ model, el }) {
  const name = `quiz-${Math.random().toString(36).slice(2)}`;
  // JupyterLab's own shortcuts (Enter edits a cell, arrows walk over cells) must not fire while answering.
  const root = element("section", { class: "sl-quiz", "data-lm-suppress-shortcuts": "true" });
  const question = element("p", { class: "sl-question", id: name }, model.get("question"));
  const group = element("div", { role: "radiogroup", "aria-labelledby": name });
  const notice = element("p", { class: "sl-notice", role: "status" });
  const choices = model.get("answers").map((answer, place) => {
    const choice = element("button", { type: "button", role: "radio", class: "sl-answer" });
    choice.append(element("span", { class: "sl-mark", "aria-hidden": "true" }), element("span", {}, answer.text));
    const reason = element("div", { class: "sl-reason", "aria-live": "polite" });
    choice.addEventListener("click", () => {
      model.set("chosen", place);
      model.save_changes();
    });
    group.append(choice, reason);
    return { choice, reason, answer };
  });

  group.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const here = choices.findIndex(({ choice }) => choice === document.activeElement);
    choices[(here + step + choices.length) % choices.length].choice.focus();
  });

  const draw = () => {
    const chosen = model.get("chosen");
    choices.forEach(({ choice, reason, answer }, place) => {
      const isChosen = place === chosen;
      choice.setAttribute("aria-checked", String(isChosen));
      choice.tabIndex = isChosen || (chosen < 0 && place === 0) ? 0 : -1; // one stop for Tab, as in every radio group
      choice.classList.toggle("sl-right", isChosen && answer.right);
      choice.classList.toggle("sl-wrong", isChosen && !answer.right);
      choice.querySelector(".sl-mark").textContent = isChosen ? (answer.right ? "✓" : "✗") : "";
      reason.hidden = !isChosen;
      reason.innerHTML = isChosen ? `<strong>${answer.right ? "Right." : "Not this one."}</strong> ${answer.reason}` : "";
    });
    notice.textContent = model.get("notice");
    notice.hidden = !notice.textContent;
  };
  model.on("change:chosen", draw);
  model.on("change:notice", draw);
  const forget = followTheme(root);
  root.append(question, group, notice);
  el.append(root);
  draw();
  return () => {
    model.off("change:chosen", draw);
    model.off("change:notice", draw);
    forget();
  };
}

export default { render };
