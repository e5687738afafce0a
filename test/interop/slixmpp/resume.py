"""A slixmpp client with stream management (XEP-0198) that does what it is told: one JSON object per line of input, one per line of output.

Input: {"connect": port} (also again, after the connection was lost), {"send": [texts], "to": jid}, {"sync": id} (a ping to the server
and back), {"quit": true}. Output: {"event": name, ...} for what slixmpp tells: session_start, session_resumed, sm_failed,
disconnected, message (text, from, delayed), acked (text), pong (id). Works with slixmpp 1.8 (Debian 12) and with the newest one.
"""
import argparse
import asyncio
import inspect
import json
import sys

import slixmpp


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Client(slixmpp.ClientXMPP):
    def __init__(self, args):
        super().__init__(args.jid, args.password)
        self.ca_certs = args.ca
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0203"):
            self.register_plugin(plugin)
        self.plugin["xep_0198"].window = 3
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("session_resumed", lambda _: tell("session_resumed", jid=str(self.boundjid)))
        self.add_event_handler("sm_enabled", lambda _: tell("sm_enabled", resumable=bool(self.plugin["xep_0198"].sm_id)))
        self.add_event_handler("sm_failed", lambda failed: tell("sm_failed", h=failed.xml.get("h")))
        self.add_event_handler("stanza_acked", self.acked)
        self.add_event_handler("message", self.received)
        self.add_event_handler("disconnected", lambda reason: tell("disconnected", reason=str(reason)))
        self.add_event_handler("failed_all_auth", lambda _: tell("failed_all_auth"))

    def open(self, port):
        if "use_ssl" in inspect.signature(self.connect).parameters:   # slixmpp before 1.9
            self.connect(("127.0.0.1", port), force_starttls=True)
        else:
            self.enable_direct_tls = self.enable_plaintext = False
            self.connect("127.0.0.1", port)

    async def start(self, _):
        await self.get_roster()
        self.send_presence()
        tell("session_start", jid=str(self.boundjid))

    def acked(self, stanza):
        if isinstance(stanza, slixmpp.Message):
            tell("acked", text=stanza["body"])

    def received(self, message):
        if message["body"]:
            delayed = message.xml.find("{urn:xmpp:delay}delay") is not None
            tell("message", text=message["body"], sender=str(message["from"]), type=message["type"], delayed=delayed)

    async def sync(self, name):
        await self.plugin["xep_0199"].ping(self.boundjid.domain)
        tell("pong", id=name)


async def main():
    parser = argparse.ArgumentParser()
    for name in ("jid", "password", "ca"):
        parser.add_argument("--" + name, required=True)
    client = Client(parser.parse_args())
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tell("library", version=slixmpp.__version__)
    while line := await lines.readline():
        order = json.loads(line)
        if "connect" in order:
            client.open(order["connect"])
        elif "send" in order:
            for text in order["send"]:
                client.send_message(mto=order["to"], mbody=text, mtype="chat")
        elif "sync" in order:
            asyncio.ensure_future(client.sync(order["sync"]))
        else:
            break
    await client.disconnect()


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)   # slixmpp takes the loop of the thread when a client is made
loop.run_until_complete(main())
