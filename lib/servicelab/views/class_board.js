// The teacher's board: one row for each student, one square for each check. Rows are kept and changed in place, so that a button
// that is about to be pressed doesn't move away.

const SIGN = { passed: "✓", failing: "✗", untried: "" };
const LONG_MINUTES = 5; // stuck or idle for so long: another colour
const SURE_MS = 4000;

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function render({ model, el }) {
  const root = make("div", { class: "sl-board sl-scene", "data-lm-suppress-shortcuts": "true" });
  const hide = make("button", { type: "button" });
  const line = make("span", { class: "line", role: "status" });
  const notice = make("p", { class: "notice", role: "alert" });
  const head = make("tr");
  const table = make("table", {}, make("thead", {}, head)); // then a tbody for each student: the squares, and where they are stuck
  root.append(make("div", { class: "bar" }, line, hide), notice, table);
  el.append(root);
  const unfollow = followTheme(root);

  const known = new Map(); // student's key: their row's elements
  const nameOf = (row) => (model.get("hide_names") ? `Student ${row.number}` : row.name);

  const drawHead = () => {
    const cells = ["student", "passed", "idle", ""].map((text) => make("th", { scope: "col" }, text));
    let last = null;
    let group = null;
    for (const check of model.get("checks")) {
      if (check.lesson !== last) {
        group = make("th", { scope: "colgroup", class: "lesson", colspan: "0" }, check.lesson);
        cells.push(group);
        last = check.lesson;
      }
      group.colSpan = Number(group.getAttribute("colspan")) + 1;
    }
    head.replaceChildren(...cells);
  };

  const addRow = (row) => {
    const who = make("th", { scope: "row", class: "who" });
    const checks = model.get("checks");
    const squares = checks.map(() => make("span", { class: "cell", tabindex: "-1", role: "img" }));
    const boxes = squares.map((square, place) =>
      make("td", { class: place === 0 || checks[place].lesson !== checks[place - 1].lesson ? "first" : "" }, square),
    );
    const count = make("td", { class: "count" });
    const idle = make("td", { class: "count" });
    const button = make("button", { type: "button" }, "reset");
    const stuck = make("td", { class: "stuck", colspan: String(checks.length + 3) });
    const why = make("tr", {}, make("td"), stuck);
    let timer = null;
    const calm = () => {
      clearTimeout(timer);
      timer = null;
      button.classList.remove("sure");
      update(known.get(row.key).row);
    };
    button.addEventListener("click", () => {
      if (model.get("resetting").includes(row.key)) return;
      if (timer === null) { // a second click within a moment means it
        button.classList.add("sure");
        button.textContent = "really reset?";
        timer = setTimeout(calm, SURE_MS);
        return;
      }
      calm();
      model.send({ do: "reset", student: row.key });
    });
    const element = make("tbody", { "data-student": row.key }, make("tr", {}, who, count, idle, make("td", {}, button), ...boxes), why);
    known.set(row.key, { row, element, who, squares, count, idle, button, stuck, why, asking: () => timer !== null });
  };

  const update = (row) => {
    const parts = known.get(row.key);
    parts.row = row;
    say(parts.who, nameOf(row));
    parts.who.title = nameOf(row);
    const checks = model.get("checks");
    parts.squares.forEach((square, place) => {
      const [state, tries, minutes, hint] = row.cells[place];
      const check = checks[place];
      const long = state === "failing" && minutes >= LONG_MINUTES ? " long" : "";
      square.className = `cell ${state}${long}${row.stuck === check.key ? " here" : ""}`;
      say(square, SIGN[state]);
      const words = state === "untried" ? "not tried" : `${state} for ${minutes} min, ${tries} ${tries === 1 ? "try" : "tries"}`;
      square.title = `${check.key} ${check.title}: ${words}${hint ? `\nhint: ${hint}` : ""}`;
      square.setAttribute("aria-label", square.title);
    });
    say(parts.count, `${row.passed}/${checks.length}`);
    say(parts.idle, row.idle > 0 ? `${row.idle} min` : ""); // since they checked or answered anything
    parts.idle.classList.toggle("long", row.idle >= LONG_MINUTES && row.passed < checks.length);
    const busy = model.get("resetting").includes(row.key);
    if (!parts.asking()) say(parts.button, busy ? "resetting…" : "reset");
    parts.button.setAttribute("aria-label", `reset the lesson of ${nameOf(row)}`);
    parts.button.setAttribute("aria-disabled", String(busy));
    parts.why.hidden = !row.stuck;
    say(parts.stuck, row.stuck ? `${row.stuckMinutes} min on “${row.stuckOn}”: ${row.hint}` : "");
  };

  const draw = () => {
    const rows = model.get("rows");
    const here = new Set(rows.map((row) => row.key));
    for (const [key, parts] of known) if (!here.has(key)) parts.element.remove(), known.delete(key);
    rows.forEach((row, place) => {
      if (!known.has(row.key)) addRow(row);
      update(row);
      const { element } = known.get(row.key);
      if (table.tBodies[place] !== element) table.insertBefore(element, table.tBodies[place] || null);
    });
    say(line, model.get("line"));
    say(hide, model.get("hide_names") ? "show names" : "hide names");
    say(notice, model.get("notice"));
    notice.hidden = !model.get("notice");
  };
  hide.addEventListener("click", () => {
    model.set("hide_names", !model.get("hide_names"));
    model.save_changes();
    draw();
  });

  drawHead();
  draw();
  const names = ["rows", "line", "notice", "resetting", "hide_names"];
  for (const name of names) model.on(`change:${name}`, draw);
  return () => {
    unfollow();
    names.forEach((name) => model.off(`change:${name}`, draw));
  };
}

export default { render };
