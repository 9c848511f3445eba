"""How long the topology takes to redraw in a real browser when pods change: 10, 50 and 100 of them.

    python benchmarks/views.py            prints the table, and writes it into benchmarks/README.md
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from run import README, ROOT, machine

sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "tests" / "views")]

import mounting  # noqa: E402
from view_objects import busy_world, pod  # noqa: E402

from servicelab.views import topology  # noqa: E402
from servicelab.views.base import View  # noqa: E402
from servicelab.views.drawing import Colours  # noqa: E402

BEGIN, END = "<!-- views: made by benchmarks/views.py -->", "<!-- end of views -->"
SIZES = (10, 50, 100)
DRAWINGS = """async ([one, other]) => {
  const times = [];
  for (let turn = 0; turn < 100; turn += 1) {
    model.set("scene", turn % 2 ? one : other);
    // this callback is asked for after the view's own and runs right behind it: between them lies one drawing
    const begin = await new Promise((resolve) => queueMicrotask(() => resolve(performance.now())));
    const frame = await new Promise((resolve) => requestAnimationFrame(resolve));
    times.push(performance.now() - Math.max(begin, frame));
  }
  return times.sort((a, b) => a - b);
}"""


def scene(seen) -> dict:
    """The topology of a world, as the browser gets it."""
    return topology.draw(seen, "default", Colours()).as_json()


def measure(browser, folder: Path, pods: int) -> list[float]:
    """Milliseconds of a hundred drawings, shortest first, while a tenth of the pods changes back and forth."""
    seen = busy_world(pods)
    one = scene(seen)
    for each in seen.pods()[: pods // 10]:
        seen.apply("pods", "MODIFIED", pod(each.name, owner="my-nginx", node=each.node, ip=each.ip, ready=False))
    with mounting.mounted(browser, folder, View, scene=one) as page:
        return page.evaluate(DRAWINGS, [one, scene(seen)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", dest="dry", help="leave README.md alone")
    args = parser.parse_args()
    if mounting.chromium() is None:
        sys.exit("There is no Chromium here: apt-get install chromium")
    lines = [
        f"A hundred drawings each, {machine()}; a frame of a screen at 60 Hz is 16.7 ms.",
        "",
        "| pods in the topology | median | 95 of 100 |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="servicelab-views-") as folder, mounting.browser() as browser:
        for pods in SIZES:
            times = measure(browser, Path(folder), pods)
            lines.append(f"| {pods} | {times[len(times) // 2]:.1f} ms | {times[len(times) * 95 // 100]:.1f} ms |")
    table = "\n".join(lines)
    print(table)
    if not args.dry:
        text = README.read_text(encoding="utf-8")
        README.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text, flags=re.DOTALL), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
