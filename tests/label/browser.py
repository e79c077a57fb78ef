"""A headless Chromium that a test drives over the Chrome DevTools protocol, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OFFLINE = (
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
)


class Page:
    """One page of the browser.

    Args:
        address: of its websocket.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade")
        more = (f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "")
        self._socket.sendall("\r\n".join((*lines, *more)).encode())
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._socket.recv(65536)
        self._rest = self._rest.split(b"\r\n\r\n", 1)[1]
        self._count = 0
        self.said: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give an order and wait for its result; what the page says meanwhile is kept in ``said``."""
        self._count += 1
        self._send(json.dumps({"id": self._count, "method": method, "params": parameters}).encode())
        while True:
            message = json.loads(self._receive())
            if message.get("id") == self._count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._note(message)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 90) -> Any:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.3)
        raise TimeoutError(f"{script} was not true in {seconds} s; the page said {self.said[-20:]}")

    def click(self, x: float, y: float) -> None:
        """Press and release the left button at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click_on(self, element: str) -> None:
        """Click on the middle of the element that a JavaScript expression gives."""
        place = "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]"
        scroll = "e.scrollIntoView({block: 'nearest'})"
        box = self.wait(f"(e => {{ if (!e) return null; {scroll}; {place} }})({element})")
        self.click(*box)

    def picture(self, file: Path) -> Path:
        """Save what the window shows as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return file

    def wait_for_pixels(
        self,
        look: Callable[[], Any],
        good: Callable[[Any], bool] = lambda one: bool(one.std() > 20),
        seconds: float = 60,
    ) -> Any:
        """Look until what is shown is as wanted; what was seen last is given back in any case."""
        end = time.monotonic() + seconds
        while not good(seen := look()) and time.monotonic() < end:
            time.sleep(0.5)
        return seen

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.consoleAPICalled":
            words = [str(one.get("value", one.get("description", ""))) for one in parameters["args"]]
            self.said.append(f"{parameters['type']}: {' '.join(words)[:400]}")
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(f"exception: {str(parameters['exceptionDetails'])[:600]}")
        elif message.get("method") == "Network.responseReceived" and parameters["response"]["status"] >= 400:
            self.said.append(f"{parameters['response']['status']}: {parameters['response']['url']}")

    def _send(self, text: bytes) -> None:
        """One masked text frame."""
        size = len(text)
        head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81" + (
            struct.pack("!BH", 0xFE, size) if size < 65536 else struct.pack("!BQ", 0xFF, size)
        )  # fmt: skip
        mask = os.urandom(4)
        self._socket.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text)))

    def _receive(self) -> bytes:
        """One whole message."""
        whole = b""
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
            data = self._take(size)
            if first & 0x0F in (0, 1):
                whole += data
                if first & 0x80:
                    return whole

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            got = self._socket.recv(1 << 20)
            if not got:
                raise ConnectionError("the browser has closed the connection")
            self._rest += got
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def close(self) -> None:
        """Let the page be."""
        self._socket.close()


@contextmanager
def browser_page(folder: Path, width: int = 1500, height: int = 900) -> Iterator[Page]:
    """Start a browser with one empty page, and end it.

    Args:
        folder: of its profile.
        width: of the window in pixels.
        height: of the window in pixels.
    """
    options = [*OFFLINE, "--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}",
               f"--window-size={width},{height}", "--hide-scrollbars", "--use-angle=swiftshader",
               "--enable-unsafe-swiftshader", "--no-first-run", "--disable-dev-shm-usage"]  # fmt: skip
    with (folder.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [str(BROWSER), *options, "about:blank"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        port = _port(folder / "DevToolsActivePort", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        page = Page(target["webSocketDebuggerUrl"])
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        yield page
        page.close()
    finally:
        os.killpg(process.pid, 9)
        process.wait(20)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that the browser has chosen."""
    for _ in range(300):
        if file.is_file() and (text := file.read_text()).count("\n"):
            return int(text.splitlines()[0])
        if process.poll() is not None:
            raise RuntimeError(f"the browser ended with {process.returncode}")
        time.sleep(0.2)
    raise TimeoutError("the browser opened no port in 60 s")
