"""Ask an export in the programs of others: processes that see nothing of ours, Node, a browser."""

import functools
import html
import http.server
import json
import queue
import re
import subprocess
import threading
from pathlib import Path

import pytest

from eelbert_jax.export import page

SCRIPT = Path(page.__file__).parents[2] / "web" / "encoder.js"
PATIENCE_SECONDS = 600
CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000"),
    "--dump-dom",
)


def fetched(words):
    """Run what fetches a package; skip where it fails."""
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{words[0]} fetches nothing here: {error}")
    if run.returncode:
        pytest.skip(f"{' '.join(map(str, words))} failed: {run.stderr.strip().splitlines()[-1:]}")


def answer(words, **how):
    """Return the JSON that a process prints as its last line."""
    run = subprocess.run([*map(str, words)], capture_output=True, text=True, **how)
    assert not run.returncode, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def in_node(expression: str, value):
    """Return what a JavaScript expression of `E`, the page's script, and `value` gives."""
    program = f"""
        const E = require({json.dumps(str(SCRIPT))});
        const value = JSON.parse(require("fs").readFileSync(0, "utf-8"));
        console.log(JSON.stringify({expression}));"""
    return answer(["node", "-e", program], input=json.dumps(value))


def shown_in_browser(path: Path) -> str:
    """Return the document that Chromium makes of a page on disk."""
    run = subprocess.run(
        [*CHROMIUM, path.as_uri()], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    return run.stdout


def in_browser(path: Path, expression: str, value):
    """Return what an expression of a page's `model` and `value` gives in Chromium, after its own scripts."""
    given = json.dumps(value).replace("<", "\\u003c")
    script = f"<script>document.title = ((value) => JSON.stringify({expression}))({given})</script>"
    asking = path.with_name("asking.html")
    asking.write_text(
        path.read_text(encoding="utf-8").replace("</html>", f"{script}</html>"), encoding="utf-8"
    )
    (title,) = re.findall(r"<title>(.*?)</title>", shown_in_browser(asking))
    return json.loads(html.unescape(title))


def said_in_browser(folder: Path, page: str) -> str:
    """Serve a folder, open its `page` in Chromium, and return what the page posts first."""
    posted: queue.Queue[str] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            posted.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [*CHROMIUM[:4], f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0"]
        browser = subprocess.Popen(
            [*words, f"http://127.0.0.1:{server.server_port}/{page}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return posted.get(timeout=PATIENCE_SECONDS)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
