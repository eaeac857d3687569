"""A webhook that refuses all, and says what its service account lets it see. Runs in a Pod; standard library alone."""

import json
import os
import ssl
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def pods() -> int:
    """How many Pods the API server lists, asked as every in-cluster client asks."""
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    bearer = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    request = urllib.request.Request(f"{server}/api/v1/pods", headers=bearer)
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=trust, timeout=5) as answer:
        return len(json.load(answer)["items"])


class Gate(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reason = {"message": f"the gate sees {pods()} Pods and says no"}
        review["response"] = {"uid": review["request"]["uid"], "allowed": False, "status": reason}
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain("/cert/gate.crt", "/cert/gate.key")
    server = HTTPServer(("", 9443), Gate)
    server.socket = serving.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
