/** Reports attached to a block: XEP-0377 Blocking Command Reports 0.4.1. What becomes of them is up to other modules. */
import type { Element } from '../../server/xmpp/element.ts'
import type { JID } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'

/** Namespace of <report/>. */
export const REPORTING = 'urn:xmpp:reporting:1'
const MAX_TEXT = 4096
const MAX_STANZA_IDS = 100
const MAX_REASON = 256

/** Somebody reports whom he blocks. */
export interface AbuseReport {
  /** Bare JID of the account that reports. */
  readonly account: JID
  /** Who is reported. */
  readonly jid: JID
  /** 'urn:xmpp:reporting:spam', 'urn:xmpp:reporting:abuse', or another URI. */
  readonly reason: string
  /** What the user says about it, '' when nothing; at most 4096 characters. */
  readonly text: string
  /** Messages in the archive that are meant, at most 100. */
  readonly stanzaIds: readonly { readonly by: string; readonly id: string }[]
  /** §5: the user allows to forward the report to the domain of the reported. */
  readonly toOrigin: boolean
  /** §5: the user allows to forward the report to others. */
  readonly toThirdParties: boolean
}

declare module '../../server/module.ts' {
  interface Hooks {
    /** Run by the blocking module when a block with a report is stored. */
    'abuse:report': AbuseReport
  }
}

/** The report in an <item/>; undefined when there is none, or none with a reason (§4: required). */
export function readReport(item: Element, account: JID, jid: JID): AbuseReport | undefined {
  const report = item.getChild('report', REPORTING)
  const reason = report?.attr('reason') ?? ''
  if (report === undefined || reason === '' || reason.length > MAX_REASON) return undefined
  return {
    account,
    jid,
    reason,
    text: (report.getChildText('text') ?? '').trim().slice(0, MAX_TEXT),
    stanzaIds: report
      .getChildren('stanza-id', NS.SID)
      .slice(0, MAX_STANZA_IDS)
      .map((e) => ({ by: e.attr('by') ?? '', id: e.attr('id') ?? '' })),
    toOrigin: report.getChild('report-origin') !== undefined,
    toThirdParties: report.getChild('third-party') !== undefined,
  }
}
