/**
 * JID escaping (XEP-0106 1.1.1): writes characters that a localpart cannot hold as `\hh`. For gateways, for names that come from
 * elsewhere (mail addresses, directories) and for display. Routing and comparison never use it (§4.1 rules 4 and 5).
 */
import { JidError } from './jid.ts'

const CODES = '20|22|26|27|2f|3a|3c|3e|40|5c'
// Case is significant (§3.1)
const ESCAPED = new RegExp(`\\\\(${CODES})`, 'g')
const TO_ESCAPE = new RegExp(`[ "&'/:<>@]|\\\\(?=${CODES})`, 'g')

/**
 * The localpart for a name (§4.2). A backslash is escaped only where it would read as the start of an escape sequence (§4.3). Not
 * prepared: pass it to `makeJid`. Throws JidError when the name starts or ends with a space, which no escaped localpart can say (§4.1 rule 6).
 */
export function escapeLocal(name: string): string {
  if (name.startsWith(' ') || name.endsWith(' ')) throw new JidError('name starts or ends with a space')
  return name.replace(TO_ESCAPE, (char) => `\\${char.charCodeAt(0).toString(16)}`)
}

/** The name a localpart stands for (§3.3); sequences that are no escapes stay, as does `\20` at either end. Takes a prepared localpart. */
export function unescapeLocal(local: string): string {
  return local.replace(ESCAPED, (sequence, code: string, offset: number) => {
    const outermost = offset === 0 || offset + sequence.length === local.length
    return code === '20' && outermost ? sequence : String.fromCharCode(Number.parseInt(code, 16))
  })
}
