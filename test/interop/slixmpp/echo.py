"""A slixmpp user who answers each chat message with "echo: " and its text. Prints {"ready": jid} once logged in, then each text received."""
import argparse
import asyncio
import inspect
import json

import slixmpp


class Echo(slixmpp.ClientXMPP):
    def __init__(self, args):
        super().__init__(args.jid, args.password)
        self.ca_certs = args.ca
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("message", self.answer)
        self.add_event_handler("disconnected", lambda _: asyncio.get_event_loop().stop())

    async def start(self, _):
        await self.get_roster()
        self.send_presence()
        print(json.dumps({"ready": str(self.boundjid)}), flush=True)

    def answer(self, message):
        if message["type"] == "chat" and message["body"]:
            print(json.dumps({"received": message["body"], "from": str(message["from"])}), flush=True)
            self.send_message(mto=message["from"], mbody="echo: " + message["body"], mtype="chat")


parser = argparse.ArgumentParser()
for name in ("jid", "password", "ca"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--port", type=int, required=True)
args = parser.parse_args()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
client = Echo(args)
if "use_ssl" in inspect.signature(client.connect).parameters:   # slixmpp before 1.9
    client.connect(("127.0.0.1", args.port))
else:
    client.enable_direct_tls = client.enable_plaintext = False
    client.connect("127.0.0.1", args.port)
loop.run_forever()
