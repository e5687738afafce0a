"""Two slixmpp clients against one XMPP server: login, roster, presence, messages, discovery, vCard, blocking, version, time.

Prints one JSON object per check: {"check": name, "ok": true} or {"check": name, "skipped": reason}; ends with status 1 at the first
failure. Works with slixmpp 1.8 (Debian 12) and with the newest one. Nothing here knows which server it talks to.
"""
import argparse
import asyncio
import inspect
import json
import sys

import slixmpp
from slixmpp.exceptions import IqError



def report(check, **more):
    print(json.dumps({"check": check, **({"ok": True} if not more else more)}), flush=True)


class Client(slixmpp.ClientXMPP):
    """Keeps what came in queues, so that a check can wait for it."""

    def __init__(self, args, jid, password):
        super().__init__(jid, password)
        self.args = args
        self.ca_certs = args.ca
        self.queues = {}
        self.started = asyncio.get_event_loop().create_future()
        for plugin in ("xep_0030", "xep_0045", "xep_0054", "xep_0092", "xep_0191", "xep_0198", "xep_0199", "xep_0202",
                       "xep_0280", "xep_0313"):
            self.register_plugin(plugin)
        self.auto_authorize = None   # every subscription is answered by the script
        self.auto_subscribe = False
        self.add_event_handler("session_start", lambda _: self.settle(None))
        self.add_event_handler("failed_all_auth", lambda _: self.settle("no mechanism worked"))
        self.add_event_handler("ssl_invalid_chain", lambda error: self.settle("certificate: %s" % error))
        for name in ("message", "presence_available", "presence_unavailable", "presence_subscribe", "presence_subscribed",
                     "message_error", "carbon_received", "changed_status"):
            self.add_event_handler(name, lambda stanza, name=name: self.queue(name).put_nowait(stanza))

    def settle(self, failure):
        if not self.started.done():
            if failure is None:
                self.started.set_result(True)
            else:
                self.started.set_exception(RuntimeError("login failed: %s" % failure))

    def queue(self, name):
        return self.queues.setdefault(name, asyncio.Queue())

    async def wait(self, name, test):
        """The next event of that name that passes the test."""
        async def search():
            while True:
                stanza = await self.queue(name).get()
                if test(stanza):
                    return stanza
        return await asyncio.wait_for(search(), self.args.timeout)

    async def login(self):
        direct = self.args.tls == "direct"
        if "use_ssl" in inspect.signature(self.connect).parameters:   # slixmpp before 1.9
            self.connect((self.args.host, self.args.port), use_ssl=direct, force_starttls=not direct,
                         disable_starttls=direct)
        else:
            self.enable_direct_tls, self.enable_starttls, self.enable_plaintext = direct, not direct, False
            self.connect(self.args.host, self.args.port)
        await asyncio.wait_for(self.started, self.args.timeout)
        mechanism = self.plugin["feature_mechanisms"].mech.name
        return mechanism


async def run(args):
    alice = Client(args, args.alice, args.password)
    bob = Client(args, args.bob, args.password)
    domain = alice.boundjid.domain
    report("login", ok=True, mechanism=await alice.login())
    await bob.login()

    for client in (alice, bob):
        roster = await client.get_roster()
        assert roster["type"] == "result"
        assert not roster["roster"]["items"], "the roster is not empty"
        client.send_presence()
        await client.wait("presence_available", lambda p: p["from"] == client.boundjid)
    report("roster and initial presence")

    for one, other in ((alice, bob), (bob, alice)):
        one.send_presence_subscription(pto=other.boundjid.bare)
        await other.wait("presence_subscribe", lambda p: p["from"] == one.boundjid.bare)
        other.send_presence_subscription(pto=one.boundjid.bare, ptype="subscribed")
        await one.wait("presence_subscribed", lambda p: p["from"].bare == other.boundjid.bare)
        await one.wait("presence_available", lambda p: p["from"] == other.boundjid)
    for one, other in ((alice, bob), (bob, alice)):
        await one.get_roster()   # may be an empty result, when the version is current; the pushes came before it
        item = one.client_roster[other.boundjid.bare]
        assert item["subscription"] == "both", item
    report("subscription")

    bob.send_presence(pshow="away", pstatus="gone fishing")
    seen = await alice.wait("changed_status", lambda p: p["from"] == bob.boundjid and p["show"] == "away")
    assert seen["status"] == "gone fishing"
    report("presence")

    for one, other, text in ((alice, bob, "Hello, Bob"), (bob, alice, "Grüße, Alice 🌹 <&>")):
        one.send_message(mto=other.boundjid.bare, mbody=text, mtype="chat")
        message = await other.wait("message", lambda m: m["type"] == "chat")
        assert message["body"] == text and message["from"] == one.boundjid, str(message)
    report("messages both ways")
    if args.expect:   # a canary: nobody sends this text
        await alice.wait("message", lambda m: m["body"] == args.expect)

    info = await alice.plugin["xep_0030"].get_info(jid=domain)
    features = info["disco_info"]["features"]
    assert any(i[0] == "server" and i[1] == "im" for i in info["disco_info"]["identities"]), info
    assert "urn:xmpp:ping" in features
    assert await alice.plugin["xep_0199"].ping(domain) < args.timeout
    report("discovery and ping")

    card = alice.plugin["xep_0054"].make_vcard()
    card["FN"] = "Alice & Co"
    await alice.plugin["xep_0054"].publish_vcard(card)
    got = await bob.plugin["xep_0054"].get_vcard(alice.boundjid.bare)
    assert got["vcard_temp"]["FN"] == "Alice & Co", got
    report("vcard")

    version = await alice.plugin["xep_0092"].get_version(domain)
    assert version["software_version"]["name"], version
    time = await alice.plugin["xep_0202"].get_entity_time(domain)
    # read as text: 1.8.3 cannot parse a time without fractions of a second (XEP-0082 §3.2 makes them optional)
    assert time.xml.findtext(".//{urn:xmpp:time}utc").endswith("Z"), time
    report("version and time", ok=True, server=version["software_version"]["name"])

    await alice.plugin["xep_0191"].block(bob.boundjid.bare)
    blocked = (await alice.plugin["xep_0191"].get_blocked()).xml.iter("{urn:xmpp:blocking}item")
    assert [item.get("jid") for item in blocked] == [bob.boundjid.bare]
    await bob.wait("presence_unavailable", lambda p: p["from"] == alice.boundjid)
    bob.send_message(mto=alice.boundjid.bare, mbody="are you there?", mtype="chat")
    error = await bob.wait("message_error", lambda m: m["from"].bare == alice.boundjid.bare)
    assert error["error"]["condition"] == "service-unavailable", error
    await alice.plugin["xep_0191"].unblock(bob.boundjid.bare)
    await bob.wait("presence_available", lambda p: p["from"] == alice.boundjid)
    report("blocking")

    own = await alice.plugin["xep_0030"].get_info(jid=alice.boundjid.bare)
    if "urn:xmpp:carbons:2" in features:
        second = Client(args, args.alice + "/second", args.password)
        await second.login()
        await second.get_roster()
        await second.plugin["xep_0280"].enable()
        second.send_presence(ppriority=-1)
        await second.wait("presence_available", lambda p: p["from"] == second.boundjid)
        bob.send_message(mto=alice.boundjid.full, mbody="for one, seen by two", mtype="chat")
        await alice.wait("message", lambda m: m["body"] == "for one, seen by two")
        carbon = await second.wait("carbon_received", lambda m: True)
        assert carbon["carbon_received"]["body"] == "for one, seen by two", carbon
        await second.disconnect()
        report("carbons")
    else:
        report("carbons", skipped="not offered")
    if "urn:xmpp:mam:2" in features or "urn:xmpp:mam:2" in own["disco_info"]["features"]:
        texts = []
        async for result in alice.plugin["xep_0313"].iterate(with_jid=bob.boundjid.bare):
            texts.append(result["mam_result"]["forwarded"]["stanza"]["body"])
        assert "Hello, Bob" in texts and "Grüße, Alice 🌹 <&>" in texts, texts
        report("archive")
    else:
        report("archive", skipped="not offered")

    try:
        await alice.plugin["xep_0030"].get_info(jid="nobody-at-all@" + domain, timeout=args.timeout)
        raise RuntimeError("an unknown account has been discovered")
    except IqError as error:
        assert error.condition == "service-unavailable", error
    report("errors of unknown accounts")

    await bob.disconnect()
    await alice.wait("presence_unavailable", lambda p: p["from"] == bob.boundjid)
    await alice.disconnect()
    report("logout")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", choices=("starttls", "direct"), default="starttls")
    parser.add_argument("--ca", required=True, help="certificate to trust")
    parser.add_argument("--alice", required=True)
    parser.add_argument("--bob", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--timeout", type=int, default=15, help="seconds for each step")
    parser.add_argument("--expect", help="also wait for a message with this text")
    args = parser.parse_args()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    report("library", ok=True, version=slixmpp.__version__)
    try:
        loop.run_until_complete(asyncio.wait_for(run(args), 60))
    except BaseException as error:   # the caller reads the reason from the last line
        print(json.dumps({"check": "failure", "ok": False, "error": "%s: %s" % (type(error).__name__, error)}), flush=True)
        sys.exit(1)


main()
