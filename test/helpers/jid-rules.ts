/** Rules that hold for every text given to the address parser; shared by the fuzzer, its corpus and the unit test. */
import { domainToASCII, fileURLToPath } from 'node:url'
import { isIP } from 'node:net'
import { expect } from 'chai'
import { toAsciiDomain } from '../../server/xmpp/idna.ts'
import { makeJid, parseJid, tryJid } from '../../server/xmpp/jid.ts'

/** Folder of texts that once broke a rule, one a file, as UTF-16. */
export const JID_CORPUS = fileURLToPath(new URL('../fuzz/corpus/jid', import.meta.url))

/** Checks the rules; whether the text is an address. Throws when a rule does not hold. */
export function checkJidText(text: string): boolean {
  const jid = tryJid(text)
  if (jid === undefined) return false
  const { local, domain, resource } = jid
  const prepared = jid.toString()
  // RFC 7622 §3.1, §3.2: where the parts are split, and how long they are
  const head = text.split('/', 1)[0] ?? ''
  expect(resource !== '').to.equal(text.length > head.length)
  expect(local !== '').to.equal(head.includes('@'))
  for (const part of [local, domain, resource]) {
    expect(Buffer.byteLength(part)).to.be.at.most(1023)
    expect(part.isWellFormed()).to.equal(true)
    expect(part.normalize('NFC')).to.equal(part)
    expect(part).not.to.match(/[\p{Cc}\p{Co}\p{Cn}]/u)
  }
  expect(local).not.to.match(/["&'/:<>@\s]/)
  expect(domain).to.match(/^(?:[^@/\s]*[^@/\s.]|\[[0-9a-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])$/)
  expect(resource).not.to.match(/[^\P{Zs} ]/u)
  expect(prepared).to.equal(
    `${local === '' ? '' : `${local}@`}${domain}${resource === '' ? '' : `/${resource}`}`,
  )
  // Idempotence, and the parts make the whole
  expect(parseJid(prepared).toString()).to.equal(prepared)
  expect(makeJid(local, domain, resource).equals(jid)).to.equal(true)
  expect(jid.bare.toString()).to.equal(local === '' ? domain : `${local}@${domain}`)
  expect(jid.bare.resource).to.equal('')
  // The resolver of the runtime knows every name that IDNA2008 allows (numbers aside, which it reads as addresses)
  const ascii = toAsciiDomain(domain)
  expect(parseJid(ascii).domain).to.equal(domain)
  const last = ascii.split('.').at(-1) ?? ''
  if (!domain.startsWith('[') && isIP(domain) === 0 && !/^(?:[0-9]+|0x[0-9a-f]*)$/.test(last)) {
    expect(domainToASCII(domain)).to.equal(ascii)
  }
  return true
}
