/**
 * Which sections of the specifications of messaging have rules for a server, and what proves each: a dialogue of this folder, or a module
 * test where a dialogue cannot (time, failures, the inside), or why there is nothing to prove. sections.test.ts holds it true;
 * `node test/scenarios/sections.ts` prints it with all other sections that dialogues cite.
 */
import { type Dialogue, loadDialogues } from './format.ts'

/** What proves the sections of one specification. */
export interface Proof {
  /** Sections that at least one dialogue cites. */
  readonly dialogues: string
  /** Other sections: a file below test/, with what it proves. */
  readonly tests?: Readonly<Record<string, string>>
  /** Sections that ask nothing of this server, and why. */
  readonly not?: Readonly<Record<string, string>>
}

/** Every section with a rule for servers. */
export const RULES: Readonly<Record<string, Proof>> = {
  'XEP-0059': {
    dialogues: '2.1 2.2 2.3 2.4 2.5 2.6 2.7',
    tests: { '3': 'modules/mam-paging.test.ts any filter, paged any way' },
  },
  'XEP-0160': {
    dialogues: '2 3 4',
    tests: { '2 step 3': 'modules/offline.test.ts no room: a thousand messages are too many for a dialogue' },
    not: { '5': 'a warning' },
  },
  'XEP-0184': {
    dialogues: '7',
    not: { '5': 'clients: when to ask and to answer', '6': 'clients', '8': 'clients' },
  },
  'XEP-0198': {
    dialogues: '1 2 3 4 5 6 7 9.1 9.2 9.2.1 10 13',
    tests: {
      '4 handled':
        'modules/stream-management-resume.test.ts what is not stored yet is not in h: needs a store that waits',
      '4 both archives': 'modules/mam-delivery.test.ts the same with the archives of both sides',
      '4 wrap': 'modules/stream-management-queue.test.ts 2^32 stanzas',
      '4 requests':
        'modules/stream-management.test.ts when the server asks, and clients that do not answer: virtual time',
      '5 bounds': 'modules/stream-management-away.test.ts sessions without a stream: number, stanzas, bytes',
      '5 races': 'modules/stream-management-resume.test.ts what arrives, ends or resumes in the same moment',
      '5 restart': 'modules/stream-management-process.test.ts SIGTERM and kill -9',
      '9.2 frames':
        'modules/stream-management-resume.test.ts over WebSocket, and from one transport to the other',
    },
    not: {
      '5 location': 'a server is reached where it was found',
      '8': 'examples',
      '9.1.1': 'a resource that was just bound can always be managed',
      '10 TLS 0-RTT': 'not offered',
    },
  },
  'XEP-0203': { dialogues: '2 5', not: { '4': 'XEP-0091 is obsolete' } },
  'XEP-0280': {
    dialogues: '3 4 4.1 5 5.1 6 6.1 6.2 7 8 9 10.1 10.3 11',
    tests: {
      '4.1 remote': 'modules/carbons.test.ts a client of another server',
      '6.1 rooms': 'modules/carbons-rules.test.ts nicks shared by several devices',
      '10.3 gone': 'modules/carbons-rules.test.ts a copy for a session that ends in the same moment',
    },
    not: { '10.2': 'clients', '10.4': 'clients', '10.5': 'clients' },
  },
  'XEP-0313': {
    dialogues: '3.1 3.3.1 3.5 4 4.1 4.1.1 4.1.2 4.1.3 4.1.4 4.1.5 4.2 4.3.2 4.3.3 4.3.4 5 6.1 6.1.1 7 8.1',
    tests: {
      '3.2': 'modules/mam-retention.test.ts days must pass',
      '4.3.1': 'modules/mam-paging.test.ts pages bounded in number and size',
      '6.2': 'modules/mam.test.ts ids after removal and restart',
    },
    not: { '3.3.2': 'rooms', '6.1.2': 'rooms', '6.1.3': 'nodes', '8.2': 'clients', '8.4': 'rooms' },
  },
  'XEP-0333': { dialogues: '4.2', not: { '3': 'clients', '4.3': 'rooms', '5': 'clients' } },
  'XEP-0334': {
    dialogues: '3.3 4 4.1 4.2 4.3 4.4 5',
    tests: { '4': 'modules/mam-rules.test.ts each hint with each type' },
  },
  'XEP-0352': {
    dialogues: '3.2 4.1 4.2 5 5.1 5.2 6 9',
    tests: { '3.2 options': 'modules/csi.test.ts each optimisation switched off; bounded memory' },
  },
  'XEP-0357': {
    dialogues: '4.1 5 6 7 7.1 8 9 11.3.1',
    tests: {
      '7 when': 'modules/push-triggers.test.ts devices that are silent: virtual time',
      '7 rates': 'modules/push-rules.test.ts messages of one interval, calls',
      '7 number': 'modules/push-counts.test.ts each message counts once: hundreds of them',
      '7.1 transient': 'modules/push-failures.test.ts errors that may pass, no answer, given up after days',
      '7.1 others': 'modules/push-shares.test.ts push services that do not answer hold nobody else up',
      '9': 'modules/push.test.ts sender and text where the administrator wants it',
    },
    not: {
      '3': 'push services',
      '4.2': 'push services',
      '7.2': 'push services',
      '9 in band': 'advised against',
    },
  },
  'XEP-0359': {
    dialogues: '2.1 2.2 3 5 6',
    tests: {
      '2.2 crash':
        'modules/mam-delivery.test.ts sent again after the server was killed between the two archives',
      '6': 'modules/mam.test.ts ids tell nothing of order or number',
    },
    not: { '4': 'clients; such elements pass untouched (§3)' },
  },
  'XEP-0424': {
    dialogues: '2 3 4 5 6 6.1',
    tests: { '5 occupants': 'modules/retract.test.ts among occupants of a room of another server' },
    not: { '5.1': 'rooms' },
  },
  'XEP-0431': {
    dialogues: '2.1 2.2 3.1',
    tests: { '3.2': 'modules/mam-retention.test.ts order, case, several words, fallback texts' },
  },
  'XEP-0441': {
    dialogues: '2.1 2.1.1 2.1.2 2.1.3 2.3.1 2.3.2 2.3.3',
    tests: { '2.1 refusals': 'modules/mam-prefs.test.ts where the operator does not allow changes' },
    not: { '2.2': 'not offered' },
  },
  'XEP-0484': {
    dialogues: '2.1 3.1 3.2 3.3 3.4 3.5 3.6 4.1 6',
    tests: {
      '3.5 rotation': 'modules/fast.test.ts by age of the token: virtual time',
      '4.2': 'modules/fast.test.ts expiry: virtual time',
      '5.1': 'modules/fast.test.ts two slots for each installation',
    },
    not: { '3.4 TLS 0-RTT': 'not offered' },
  },
}

/** The sections that dialogues cite, by specification. */
export function citedBy(dialogues: Iterable<Dialogue>): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>()
  for (const { specs } of dialogues) {
    for (const spec of specs.flatMap((line) => line.split(';'))) {
      const [, name = '', sections = ''] = /^\s*((?:RFC|XEP-)\s?\d+)\s+(.*)$/.exec(spec) ?? []
      const known = found.get(name) ?? new Set()
      found.set(name, known)
      for (const [, section = ''] of sections.matchAll(/§([A-Z]?[\d.]*\d)/g)) known.add(section)
    }
  }
  return found
}

if (import.meta.main) {
  const cited = citedBy([...loadDialogues(import.meta.dirname).values()].flat())
  for (const [name, sections] of [...cited].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const sorted = [...sections].toSorted(new Intl.Collator('en', { numeric: true }).compare)
    console.log(`${name}: dialogues: §${sorted.join(', §')}`)
    for (const [section, proof] of Object.entries(RULES[name]?.tests ?? {}))
      console.log(`  §${section}: ${proof}`)
    for (const [section, reason] of Object.entries(RULES[name]?.not ?? {}))
      console.log(`  §${section}: nothing to prove: ${reason}`)
  }
}
