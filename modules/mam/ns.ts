/** Namespaces of XEP-0313 1.1.3 and of what goes with it, where more than one file of the module needs them. */

/** Archives, XEP-0313. */
export const NS_MAM = 'urn:xmpp:mam:2'
/** Forwarding, XEP-0297. */
export const NS_FORWARD = 'urn:xmpp:forward:0'
/** The field for words to look for, XEP-0431 §3.1. */
export const FULLTEXT = '{urn:xmpp:fulltext:0}fulltext'
/** Retraction, XEP-0424. */
export const NS_RETRACT = 'urn:xmpp:message-retract:1'
/** Presence that joins a room, XEP-0045. */
export const NS_MUC = 'http://jabber.org/protocol/muc'
/** What belongs to a room or is about one, XEP-0045. */
export const NS_MUC_USER = 'http://jabber.org/protocol/muc#user'

/** Flag of sessions that read the archive (true): they are not sent stored messages. */
export const READS_ARCHIVE = 'mam'
