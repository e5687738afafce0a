/** Names of XEP-0357 and of what it is made of. */

/** XEP-0357 §11.1. */
export const NS_PUSH = 'urn:xmpp:push:0'
/** FORM_TYPE of the summary (XEP-0357 §11.3.1). */
export const SUMMARY = 'urn:xmpp:push:summary'
/** XEP-0060. */
export const NS_PUBSUB = 'http://jabber.org/protocol/pubsub'
/** FORM_TYPE of publish options (XEP-0060 §7.1.5). */
export const PUBLISH_OPTIONS = 'http://jabber.org/protocol/pubsub#publish-options'
