-- Prosody 0.12 as a peer of the tests: loopback only, all data in a scratch folder. test/helpers/peers.ts sets the ENV_ values.
run_as_root = true
pidfile = ENV_PEER_DIR .. "/prosody.pid"
data_path = ENV_PEER_DIR .. "/data"
log = { { levels = { min = ENV_PEER_LOG or "warn" }, to = "file", filename = ENV_PEER_DIR .. "/prosody.log" } }

interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { tonumber(ENV_PEER_C2S) }
c2s_direct_tls_ports = { tonumber(ENV_PEER_C2S_TLS) }
s2s_ports = { tonumber(ENV_PEER_S2S) }
component_ports = { tonumber(ENV_PEER_COMPONENT) }
component_interfaces = { "127.0.0.1" }
http_ports = { tonumber(ENV_PEER_HTTP) }
http_interfaces = { "127.0.0.1" }
https_ports = { }
certificates = ENV_PEER_DIR
ssl = { certificate = ENV_PEER_DIR .. "/cert.pem"; key = ENV_PEER_DIR .. "/key.pem" }
network_backend = "epoll"

c2s_require_encryption = ENV_PEER_REQUIRE_TLS == "1"
allow_unencrypted_plain_auth = true
authentication = "internal_plain" -- hashed storage would cost a PBKDF2 per login and change nothing on the wire
consider_websocket_secure = true
allow_registration = false -- accounts come from files; mod_register still serves XEP-0077 §3.2 and §3.3

modules_enabled = {
	"disco"; "roster"; "saslauth"; "tls"; "blocklist"; "bookmarks"; "carbons"; "pep"; "private"; "smacks"; "vcard4";
	"vcard_legacy"; "csi_simple"; "ping"; "time"; "uptime"; "version"; "lastactivity"; "offline"; "register"; "websocket";
	"http"; "posix"; "mam";
}
archive_expires_after = "never"
modules_disabled = { "s2s" }
if ENV_PEER_S2S ~= "0" then modules_disabled = { } modules_enabled[#modules_enabled + 1] = "dialback" end

VirtualHost (ENV_PEER_DOMAIN)
Component ("conference." .. ENV_PEER_DOMAIN) "muc"
for name in ENV_PEER_COMPONENTS:gmatch("%S+") do
	Component (name)
	component_secret = ENV_PEER_COMPONENT_SECRET
end
