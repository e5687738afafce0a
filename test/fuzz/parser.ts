/**
 * Differential fuzzing of the XML parser against sax (strict, with namespaces): `node test/fuzz/parser.ts [--seconds N] [--seed S]`.
 * Documents are generated, broken, and cut; the two parsers must build the same tree or both refuse, and ours must do the same
 * however the bytes are cut. A document that shows a difference is shrunk and saved in test/fuzz/corpus/parser, where it is a test for ever.
 *
 * Where the two may differ, and why, is listed in DIFFERENCES.
 */
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import fc from 'fast-check'
import sax from 'sax'
import type { Element } from '../../server/xmpp/element.ts'
import { type StreamCondition, StreamError } from '../../server/xmpp/errors.ts'
import { Parser, type ParserLimits, parseXml } from '../../server/xmpp/parser.ts'

const LIMITS: ParserLimits = { maxBytes: 100_000, maxDepth: 100, maxAttrs: 100, maxName: 1000 }

/** What came of a document: its tree in one line, or the error. */
interface Outcome {
  readonly tree?: string
  readonly condition?: StreamCondition
  readonly reason?: string
}

/** Something that sax takes and we must not: our reason, the rule, and a second look whether the document breaks it. */
interface Difference {
  readonly reason: string
  readonly rule: string
  readonly breaks: (document: string) => boolean
}

const QNAME = new RegExp(
  '^(?:NAME:)?NAME$'.replaceAll('NAME', () => '[\\p{L}_][\\p{L}\\p{M}\\p{N}_.·\u{10000}-\\u{EFFFF}-]*'),
  'u',
)
const tags = (text: string) =>
  text.replace(/<!\[CDATA\[.*?\]\]>/gs, '').match(/<(?:[^<>'"]|'[^']*'|"[^"]*")*/g) ?? []
const attributeNames = (tag: string) =>
  [...tag.matchAll(/([^\s=<>'"/]+)\s*=/g)].map((match) => match[1] ?? '')
const localName = (name: string) => name.slice(name.indexOf(':') + 1)

const DIFFERENCES: readonly Difference[] = [
  {
    reason: 'control character',
    rule: 'XML 1.0 §2.2, production Char; §3.1, no "<" in attribute values',
    breaks: (text) => /[\0-\x08\x0b\x0c\x0e-\x1f]|=\s*(?:"[^"]*<|'[^']*<)/.test(text),
  },
  { reason: 'U+FFFE', rule: 'XML 1.0 §2.2, production Char', breaks: (text) => /[\ufffe\uffff]/.test(text) },
  { reason: ']]>', rule: 'XML 1.0 §2.4, not in character data', breaks: (text) => text.includes(']]>') },
  {
    reason: 'attribute twice',
    rule: 'XML 1.0 §3.1, Namespaces §6.3; sax drops the second one',
    breaks: (text) =>
      tags(text).some((tag) => {
        const names = attributeNames(tag).map(localName)
        return new Set(names).size < names.length
      }),
  },
  {
    reason: 'not a name',
    rule: 'Namespaces §4, production QName; sax knows XML 1.0 names only, and not all of them',
    breaks: (text) =>
      tags(text).some((tag) => {
        const element = /^<\/?([^\s<>'"/=]*)/.exec(tag)?.[1] ?? ''
        return [element, ...attributeNames(tag)].some((name) => !QNAME.test(name))
      }),
  },
  {
    reason: 'prefix declared without a namespace',
    rule: 'Namespaces §2.2',
    breaks: (text) => /xmlns:[^\s=]+\s*=\s*(?:''|"")/.test(text),
  },
  {
    reason: 'reserved',
    rule: 'Namespaces §3',
    breaks: (text) => /xmlns:xml\b|xmlns:xmlns\b|http:\/\/www\.w3\.org/.test(text),
  },
  {
    reason: 'undeclared prefix',
    rule: 'Namespaces §3, no elements with prefix xmlns',
    breaks: (text) => /<xmlns:/.test(text),
  },
  {
    reason: 'name is missing',
    rule: 'XML 1.0 §3.1, no white space after "<"',
    breaks: (text) => /<\s/.test(text),
  },
  {
    reason: 'end tag of an element that is not open',
    rule: 'XML 1.0 §2.1, §3.1; sax stops looking behind the root, and allows white space after "</"',
    breaks: (text) => /<\/\s/.test(text) || rootEndsEarly(text),
  },
  { reason: 'element after the end', rule: 'XML 1.0 §2.1; the same', breaks: rootEndsEarly },
  { reason: 'unexpected end', rule: 'XML 1.0 §2.1; the same', breaks: rootEndsEarly },
  {
    reason: 'text outside',
    rule: 'XML 1.0 §2.1; RFC 6120 §11.6, U+FEFF is a character',
    breaks: (text) => text.startsWith('\ufeff') || rootEndsEarly(text),
  },
  {
    reason: 'no character',
    rule: 'XML 1.0 §4.1, WFC legal character',
    breaks: (text) => /&#(?:0|xD800);/.test(text),
  },
  {
    reason: 'XML declaration',
    rule: 'XML 1.0 §2.8',
    breaks: (text) => text.lastIndexOf('<?xml') > 0 || !text.startsWith(`<?xml version='1.0'?>`),
  },
]

/** Whether the root element, as sax sees it, ends before the document does. */
function rootEndsEarly(text: string): boolean {
  for (let at = text.indexOf('>'); at >= 0 && at + 1 < text.length; at = text.indexOf('>', at + 1)) {
    if (theirs(text.slice(0, at + 1)).tree !== undefined) return true
  }
  return false
}

/** Our outcome for the whole document. */
function ours(document: string): Outcome {
  return outcome(() => canonical(parseXml(document, LIMITS)))
}

/** Our outcome when the bytes come in the pieces that end at `cuts`. */
function oursCut(bytes: Buffer, cuts: readonly number[]): Outcome {
  return outcome(() => {
    let root: Element | undefined
    const parser = new Parser({ open() {}, element: (el) => (root = el), close() {} }, LIMITS, 'document')
    let from = 0
    for (const cut of [...cuts, bytes.length]) {
      parser.write(bytes.subarray(from, cut))
      from = cut
    }
    parser.end()
    return root === undefined ? '' : canonical(root)
  })
}

function outcome(read: () => string): Outcome {
  try {
    return { tree: read() }
  } catch (error) {
    if (error instanceof StreamError) return { condition: error.condition, reason: error.message }
    throw error
  }
}

function canonical(el: Element): string {
  const names: string[] = []
  for (let i = 0; i < el.flat.length; i += 2)
    names.push(`${spaces(el.flat[i] ?? '')}=${JSON.stringify(spaces(el.flat[i + 1] ?? ''))}`)
  let content = ''
  let text = ''
  for (const child of el.children) {
    if (typeof child === 'string') text += child
    else {
      content += quoted(text) + canonical(child)
      text = ''
    }
  }
  return `{${spaces(el.ns)}}${el.name}[${names.sort().join(' ')}](${content}${quoted(text)})`
}

const quoted = (text: string) => (text === '' ? '' : JSON.stringify(text))
/** sax leaves white space in attributes as it is, and a reference to it cannot be told apart afterwards. */
const spaces = (text: string) => text.replace(/[\t\r\n]/g, ' ')

/** The outcome of sax. XML 1.0 §2.11 is done for it: it does not normalise line ends. */
function theirs(document: string): Outcome {
  const options: sax.SAXOptions & { readonly strictEntities: boolean } = { xmlns: true, strictEntities: true }
  const parser = sax.parser(true, options)
  const open: { head: string; content: string; text: string }[] = []
  let tree: string | undefined
  const flush = () => {
    const top = open.at(-1)
    if (top === undefined) return
    top.content += quoted(top.text)
    top.text = ''
  }
  const text = (more: string) => {
    const top = open.at(-1)
    if (top !== undefined) top.text += more
  }
  parser.ontext = text
  parser.oncdata = text
  parser.onopentag = (tag) => {
    flush()
    if (!('local' in tag)) return
    const names = Object.values(tag.attributes).flatMap((attr) => {
      if (attr.prefix === 'xmlns' || attr.name === 'xmlns') return []
      const name =
        attr.prefix === ''
          ? attr.name
          : attr.prefix === 'xml'
            ? attr.name
            : `{${spaces(attr.uri)}}${attr.local}`
      return `${name}=${JSON.stringify(spaces(attr.value))}`
    })
    open.push({ head: `{${spaces(tag.uri)}}${tag.local}[${names.sort().join(' ')}]`, content: '', text: '' })
  }
  parser.onclosetag = () => {
    flush()
    const closed = open.pop()
    if (closed === undefined) return
    const whole = `${closed.head}(${closed.content})`
    const top = open.at(-1)
    if (top === undefined) tree ??= whole
    else top.content += whole
  }
  try {
    parser.write(document.replace(/\r\n?/g, '\n')).close()
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error) }
  }
  return tree === undefined ? { reason: 'no root' } : { tree }
}

/** What is wrong with how a document is read, undefined when nothing is. Any other exception than a stream error comes out. */
export function fault(document: string, cuts: readonly number[] = []): string | undefined {
  const own = ours(document)
  const bytes = Buffer.from(document)
  const everywhere = bytes.length <= 400 ? Array.from({ length: bytes.length }, (_, i) => i) : []
  for (const places of [everywhere, [...cuts].filter((cut) => cut < bytes.length).sort((a, b) => a - b)]) {
    const cut = oursCut(bytes, places)
    // What is wrong with a token may show only when the token ends, and it never does in a document that ends in the middle of it.
    const same = cut.condition === own.condition || cut.reason?.includes('unexpected end')
    if (cut.tree !== own.tree || !same) {
      return `cut at ${places.length} places: ${show(cut)}, whole: ${show(own)}`
    }
  }
  const other = theirs(document)
  if (own.tree !== undefined && own.tree === other.tree) return undefined
  // XML 1.0 §2.3: sax works on UTF-16 and does not know that names may have characters beyond U+FFFF.
  if (own.tree !== undefined && other.tree === undefined && /[\u{10000}-\u{effff}]/u.test(document))
    return undefined
  if (own.tree !== undefined) return `ours: ${show(own)}, sax: ${show(other)}`
  if (other.tree === undefined) return undefined
  // RFC 6120 §11.1 and the limits: XML that we refuse on purpose.
  if (own.condition !== 'not-well-formed') return undefined
  if (DIFFERENCES.some(({ reason, breaks }) => own.reason?.includes(reason) && breaks(document)))
    return undefined
  return `ours: ${show(own)}, sax: ${show(other)}`
}

const show = (result: Outcome) => result.tree ?? `${result.condition ?? 'error'} (${result.reason})`

// Documents: trees written in all the ways XML allows, and pieces of XML in any order; then broken in a few places.

const NAMES = 'a b body p:a q:b xml:c ü a-b stream:x xmlns:a a:b:c :a 1a A.b'.split(' ')
const VALUES = [
  '',
  'x',
  'urn:1',
  'urn:2',
  'ü😀',
  '&lt;',
  '&amp;&#65;',
  ' \t',
  '"',
  '>',
  'http://www.w3.org/2000/xmlns/',
]
const MARKUP = `< > / = ' " & ; # ] ]]> : ! ? - x · ü 😀 <![CDATA[ <!-- --> <? ?> <! <a </a> </ /> <a/> &# &#x &#x41; &#0;
  &#xD800; &#x10FFFF; &lt; &nbsp; xmlns xmlns:p= xmlns:p='' xmlns='urn:1' xmlns:xml='urn:1' p:a='1' a='1' xml:lang`
const PIECES = [
  ...MARKUP.split(/\s+/),
  ...Array.from(' \t\r\n\0\u007f\ufffe\ufeff\u00a0\u2028\u037e\u{10000}'),
  '\r\n',
  "<?xml version='1.0'?>",
  '<!DOCTYPE a>',
]

const space = fc.constantFrom('', '', '', ' ', '\n', '\t ', '\r\n')
const gap = fc.constantFrom(' ', ' ', '\n', '\r', '  \t')
const quote = fc.constantFrom("'", '"')
const name = fc.oneof(
  { arbitrary: fc.constantFrom('a', 'b', 'body', 'p:a', 'q:b', 'ü'), weight: 8 },
  fc.constantFrom(...NAMES),
)
const text = fc
  .array(
    fc.oneof(fc.constantFrom(...VALUES.slice(0, -1), ']', '\n', '\r', '&#x1F600;', 'text'), fc.string()),
    { maxLength: 4 },
  )
  .map((parts) =>
    parts
      .join('')
      .replace(/[<>]/g, '')
      .replace(/&(?!#?\w+;)/g, '&amp;')
      .replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, '?'),
  )
const cdata = text.map((inner) => `<![CDATA[${inner.replaceAll(']]>', '')}]]>`)
const attribute = fc
  .tuple(
    gap,
    fc.oneof(name, fc.constantFrom('xmlns', 'xmlns:p', 'xmlns:q', 'xml:lang')),
    space,
    space,
    quote,
    fc.constantFrom(...VALUES),
  )
  .map(
    ([before, key, left, right, mark, value]) =>
      `${before}${key}${left}=${right}${mark}${value.replaceAll(mark, '')}${mark}`,
  )
const { element } = fc.letrec<{ element: string; node: string }>((tie) => ({
  node: fc.oneof({ maxDepth: 5 }, text, cdata, tie('element')),
  element: fc
    .tuple(
      name,
      fc.array(attribute, { maxLength: 4 }),
      space,
      fc.array(tie('node'), { maxLength: 4 }),
      fc.boolean(),
    )
    .map(([tag, attributes, end, nodes, empty]) =>
      empty
        ? `<${tag}${attributes.join('')}${end}/>`
        : `<${tag}${attributes.join('')}${end}>${nodes.join('')}</${tag}${end}>`,
    ),
}))
const declared = element.map(
  (inner) => `<r xmlns='urn:r' xmlns:p='urn:1' xmlns:q="urn:2" xmlns:a='urn:3'>${inner}</r>`,
)
const soup = fc
  .array(fc.constantFrom(...PIECES, ...VALUES), { maxLength: 20 })
  .map((pieces) => `<a>${pieces.join('')}</a>`)
const whole = fc.oneof({ arbitrary: declared, weight: 5 }, element, soup)
const edit = fc.record({ at: fc.nat(2000), remove: fc.nat(4), insert: fc.constantFrom('', ...PIECES) })

/** Documents, many of them broken; none with a lone surrogate, which bytes cannot carry. */
export const documents: fc.Arbitrary<string> = fc
  .tuple(whole, fc.oneof(fc.constant([]), fc.array(edit, { maxLength: 3 })))
  .map(([document, edits]) => {
    let result = document
    for (const { at, remove, insert } of edits) {
      const place = at % (result.length + 1)
      result = result.slice(0, place) + insert + result.slice(place + remove)
    }
    return result.toWellFormed()
  })

/** Places to cut the bytes at. */
export const cuts: fc.Arbitrary<readonly number[]> = fc.array(fc.nat(400), { maxLength: 6 })

/** The rule that the mocha test checks a few hundred times and this program for as long as it is told. */
export const agreement: fc.IPropertyWithHooks<[string, readonly number[]]> = fc.property(
  documents,
  cuts,
  (document, places) => {
    const found = fault(document, places)
    if (found !== undefined) throw new Error(found)
  },
)

function main(): void {
  const { values } = parseArgs({
    options: { seconds: { type: 'string', default: '20' }, seed: { type: 'string' } },
  })
  const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed)
  const result = fc.check(agreement, {
    seed,
    numRuns: Number.MAX_SAFE_INTEGER,
    interruptAfterTimeLimit: Number(values.seconds) * 1000,
    markInterruptAsFailure: false,
  })
  console.log(`seed ${seed}: ${result.numRuns} documents`)
  if (!result.failed || result.counterexample === null) return
  const [document] = result.counterexample
  const file = new URL(
    `corpus/parser/${createHash('sha256').update(document).digest('hex').slice(0, 16)}.xml`,
    import.meta.url,
  )
  writeFileSync(file, document)
  console.log(`${JSON.stringify(document)}\n${String(result.errorInstance)}\nsaved as ${file.pathname}`)
  process.exitCode = 1
}

if (import.meta.main) main()
