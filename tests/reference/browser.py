"""A headless Chromium that is told what to do over its own protocol."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Browser:
    """One page of a browser of its own.

    Args:
        folder: For its profile.
    """

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [
                str(CHROMIUM),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--remote-debugging-port=0", "--hide-scrollbars"),
                *(f"--user-data-dir={folder}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port.is_file() and "\n" in port.read_text()):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        with urllib.request.urlopen(address) as answer:
            (page,) = (entry for entry in json.load(answer) if entry["type"] == "page")
        from tornado.websocket import websocket_connect

        self.loop = asyncio.new_event_loop()
        self.socket = self.loop.run_until_complete(
            self._connect(websocket_connect, page["webSocketDebuggerUrl"])
        )
        self.numbers = itertools.count(1)
        self.events: list[dict] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    @staticmethod
    async def _connect(connect, address):
        return await connect(address, max_message_size=2**28)

    def call(self, method: str, **parameters):
        """One command and its result; what happens meanwhile goes to ``events``."""
        number = next(self.numbers)

        async def exchange():
            await self.socket.write_message(
                json.dumps({"id": number, "method": method, "params": parameters})
            )
            while True:
                message = json.loads(await self.socket.read_message())
                if message.get("id") == number:
                    assert "error" not in message, message
                    return message["result"]
                self.events.append(message)

        return self.loop.run_until_complete(asyncio.wait_for(exchange(), 60))

    def open(self, page: Path, *, width: int = 1200, height: int = 900) -> None:
        """Show a file in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + 60
        while self.value("document.readyState") != "complete":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def value(self, expression: str):
        """What an expression is in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def pdf(self) -> bytes:
        """The page as it is printed."""
        answer = self.call("Page.printToPDF", preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def close(self) -> None:
        """End the browser."""
        self.socket.close()
        self.loop.close()
        self.process.terminate()
        self.process.wait(timeout=30)
