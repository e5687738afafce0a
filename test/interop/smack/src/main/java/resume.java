import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;
import org.jivesoftware.smack.ConnectionConfiguration.SecurityMode;
import org.jivesoftware.smack.ConnectionListener;
import org.jivesoftware.smack.ReconnectionManager;
import org.jivesoftware.smack.SmackConfiguration;
import org.jivesoftware.smack.XMPPConnection;
import org.jivesoftware.smack.filter.StanzaTypeFilter;
import org.jivesoftware.smack.packet.Message;
import org.jivesoftware.smack.packet.StandardExtensionElement;
import org.jivesoftware.smack.sm.predicates.ForEveryMessage;
import org.jivesoftware.smack.tcp.XMPPTCPConnection;
import org.jivesoftware.smack.tcp.XMPPTCPConnectionConfiguration;
import org.jivesoftware.smackx.ping.PingManager;
import org.jxmpp.jid.EntityBareJid;
import org.jxmpp.jid.impl.JidCreate;

/**
 * A Smack client with stream management (XEP-0198) that does what it is told, in the language of ../slixmpp/resume.py. All connections go
 * to the port of the first one. Its messages have an origin-id (XEP-0359), so that what Smack sends again in a new session is known.
 */
final class Resume {
    private final XMPPTCPConnection connection;
    private final ExecutorService work = Executors.newCachedThreadPool();
    /** Whether the end of the present connection was told. */
    private final AtomicBoolean down = new AtomicBoolean(true);
    private int ids = 0;

    private static synchronized void tell(String event, String... fields) {
        JsonObject told = new JsonObject();
        told.addProperty("event", event);
        for (int i = 0; i < fields.length; i += 2) told.addProperty(fields[i], fields[i + 1]);
        System.out.println(told);
        System.out.flush();
    }

    /** Trusts one certificate. */
    private static X509TrustManager trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream in = new FileInputStream(file)) {
            store.setCertificateEntry("server", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        return (X509TrustManager) trust.getTrustManagers()[0];
    }

    private Resume(String jid, String password, String ca, int port) throws Exception {
        EntityBareJid address = JidCreate.entityBareFrom(jid);
        connection = new XMPPTCPConnection(XMPPTCPConnectionConfiguration.builder()
            .setXmppDomain(address.asDomainBareJid())
            .setHostAddress(InetAddress.getByName("127.0.0.1"))
            .setPort(port)
            .setUsernameAndPassword(address.getLocalpart(), password)
            .setSecurityMode(SecurityMode.required)
            .setCustomX509TrustManager(trusting(ca))
            .build());
        connection.setUseStreamManagement(true);
        connection.setUseStreamManagementResumption(true);
        connection.setReplyTimeout(3000);
        connection.addRequestAckPredicate(ForEveryMessage.INSTANCE);
        ReconnectionManager.getInstanceFor(connection).disableAutomaticReconnection();
        connection.addConnectionListener(new ConnectionListener() {
            @Override
            public void authenticated(XMPPConnection c, boolean resumed) {
                tell(resumed ? "session_resumed" : "session_start", "jid", String.valueOf(c.getUser()));
            }

            @Override
            public void connectionClosedOnError(Exception error) {
                disconnected(error);
            }

            @Override
            public void connectionClosed() {
                disconnected(null);
            }
        });
        connection.addSyncStanzaListener(stanza -> {
            Message message = (Message) stanza;
            if (message.getBody() != null) tell("message", "text", message.getBody());
        }, StanzaTypeFilter.MESSAGE);
        connection.addStanzaAcknowledgedListener(stanza -> {
            if (stanza instanceof Message) tell("acked", "text", ((Message) stanza).getBody());
        });
    }

    private void disconnected(Exception error) {
        if (down.compareAndSet(false, true)) tell("disconnected", "reason", String.valueOf(error));
    }

    private void connect() {
        down.set(false);
        try {
            connection.connect();
            connection.login();
        } catch (Exception error) {
            connection.instantShutdown();
            disconnected(error);
        }
    }

    private void send(String text, String to) throws Exception {
        connection.sendStanza(connection.getStanzaFactory().buildMessageStanza()
            .to(JidCreate.from(to))
            .ofType(Message.Type.chat)
            .setBody(text)
            .addExtension(StandardExtensionElement.builder("origin-id", "urn:xmpp:sid:0").addAttribute("id", "o" + ++ids).build())
            .build());
    }

    private void sync(String id) {
        try {
            if (PingManager.getInstanceFor(connection).pingMyServer(false, 20_000)) tell("pong", "id", id);
        } catch (Exception error) {
            tell("error", "text", String.valueOf(error));
        }
    }

    /** Arguments: jid, password, file of the certificate. */
    public static void main(String[] args) throws Exception {
        tell("library", "version", SmackConfiguration.getVersion());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Resume client = null;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject order = JsonParser.parseString(line).getAsJsonObject();
            if (order.has("connect")) {
                if (client == null) client = new Resume(args[0], args[1], args[2], order.get("connect").getAsInt());
                client.work.execute(client::connect);
            } else if (order.has("send")) {
                for (var text : order.getAsJsonArray("send")) client.send(text.getAsString(), order.get("to").getAsString());
            } else if (order.has("sync")) {
                String id = order.get("sync").getAsString();
                Resume now = client;
                client.work.execute(() -> now.sync(id));
            } else {
                break;
            }
        }
        System.exit(0);
    }
}
