/** Namespaces used by more than one file. A namespace that only one module knows stands in that module. */

/** XML namespaces of the wire. */
export const NS = {
  XML: 'http://www.w3.org/XML/1998/namespace',
  XMLNS: 'http://www.w3.org/2000/xmlns/',
  CLIENT: 'jabber:client',
  SERVER: 'jabber:server',
  COMPONENT: 'jabber:component:accept',
  STREAM: 'http://etherx.jabber.org/streams',
  STREAMS: 'urn:ietf:params:xml:ns:xmpp-streams',
  STANZAS: 'urn:ietf:params:xml:ns:xmpp-stanzas',
  TLS: 'urn:ietf:params:xml:ns:xmpp-tls',
  SASL: 'urn:ietf:params:xml:ns:xmpp-sasl',
  SASL2: 'urn:xmpp:sasl:2',
  BIND: 'urn:ietf:params:xml:ns:xmpp-bind',
  BIND2: 'urn:xmpp:bind:0',
  SESSION: 'urn:ietf:params:xml:ns:xmpp-session',
  FRAMING: 'urn:ietf:params:xml:ns:xmpp-framing',
  ROSTER: 'jabber:iq:roster',
  DISCO_INFO: 'http://jabber.org/protocol/disco#info',
  DISCO_ITEMS: 'http://jabber.org/protocol/disco#items',
  DATA: 'jabber:x:data',
  RSM: 'http://jabber.org/protocol/rsm',
  DELAY: 'urn:xmpp:delay',
  SID: 'urn:xmpp:sid:0',
  BLOCKING: 'urn:xmpp:blocking',
} as const
