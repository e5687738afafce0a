"""An app server (XEP-0357) of slixmpp, as an external component: takes what is published and prints it as JSON lines. The node "gone" is not known."""
import argparse
import asyncio
import json

import slixmpp
from slixmpp.plugins.xep_0004 import Form
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath


def say(**event):
    print(json.dumps(event), flush=True)


class AppServer(slixmpp.ComponentXMPP):
    def __init__(self, args):
        super().__init__(args.jid, args.secret, "127.0.0.1", args.port)
        for plugin in ("xep_0004", "xep_0030", "xep_0060"):
            self.register_plugin(plugin)
        self["xep_0030"].add_identity(category="pubsub", itype="push", name="Push")
        self["xep_0030"].add_feature("urn:xmpp:push:0")
        self.register_handler(Callback("publish", StanzaPath("iq@type=set/pubsub/publish"), self.published))
        self.add_event_handler("session_start", lambda _: say(event="ready"))
        self.add_event_handler("disconnected", lambda _: asyncio.get_event_loop().stop())

    def published(self, iq):
        publish = iq["pubsub"]["publish"]
        payload = publish["item"]["payload"]
        form = payload.find("{jabber:x:data}x")
        values = Form(xml=form).get_values()
        options = iq["pubsub"].xml.find(
            "{http://jabber.org/protocol/pubsub}publish-options/{jabber:x:data}x"
        )
        say(
            event="published",
            node=publish["node"],
            who=str(iq["from"]),
            payload=payload.tag,
            count=values.get("message-count"),
            secret=None if options is None else fields(options).get("secret"),
        )
        if publish["node"] == "gone":
            reply = iq.reply()
            reply["type"] = "error"
            reply["error"]["type"] = "cancel"
            reply["error"]["condition"] = "item-not-found"
            reply.send()
        else:
            iq.reply(clear=True).send()


def fields(form):
    found = {}
    for field in form.findall("{jabber:x:data}field"):
        value = field.find("{jabber:x:data}value")
        found[field.get("var")] = None if value is None else value.text
    return found


parser = argparse.ArgumentParser()
for name in ("jid", "secret"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--port", type=int, required=True)
args = parser.parse_args()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
AppServer(args).connect()
loop.run_forever()
