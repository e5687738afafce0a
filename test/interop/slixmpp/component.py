"""An external component of slixmpp: echoes messages, accepts subscriptions and asks for them, answers disco#info. Prints events as JSON lines."""
import argparse
import asyncio
import inspect
import json

import slixmpp


def say(**event):
    print(json.dumps(event), flush=True)


class Echo(slixmpp.ComponentXMPP):
    def __init__(self, args):
        super().__init__(args.jid, args.secret, "127.0.0.1", args.port)
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        self["xep_0030"].add_identity(category="gateway", itype="test", name="Echo")
        self.add_event_handler("session_start", lambda _: say(event="ready"))
        self.add_event_handler("message", self.answer)
        self.add_event_handler("presence_subscribe", self.accept)
        self.add_event_handler("presence_probe", lambda p: self.send_presence(pto=p["from"], pfrom=p["to"].bare + "/echo"))
        self.add_event_handler("presence_unavailable", lambda p: say(event="unavailable", who=str(p["from"])))
        self.add_event_handler("presence_available", lambda p: say(event="available", who=str(p["from"])))
        self.add_event_handler("failed_auth", lambda _: say(event="refused"))
        self.add_event_handler("stream_error", lambda e: say(event="stream error", condition=e["condition"]))
        self.add_event_handler("disconnected", lambda _: asyncio.get_event_loop().stop())

    def answer(self, message):
        if message["type"] in ("chat", "normal") and message["body"]:
            message.reply("echo: " + message["body"]).send()

    def accept(self, presence):
        item = self.roster[presence["to"].bare][presence["from"].bare]
        item.authorize()
        item.subscribe()
        self.send_presence(pto=presence["from"].bare, pfrom=presence["to"].bare + "/echo", pstatus="at your service")


parser = argparse.ArgumentParser()
for name in ("jid", "secret"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--port", type=int, required=True)
args = parser.parse_args()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
component = Echo(args)
component.connect()
loop.run_forever()
