/**
 * XEP-0424 Message Retraction 0.4.2: puts a tombstone in the place of a message that its author takes back, in the archives of both
 * sides, whoever of them is online. The retraction itself stays in the archives (module mam), so that devices that were away learn of it.
 * Retractions in rooms are those of the rooms.
 *
 * To find the message may take long, so nobody waits for it; but what is to be done is written down before the retraction counts as handled, and is
 * found there by the next process when this one ends. Accounts take turns. All that waits for one conversation is looked for at once, and short
 * conversations share a turn; a long search that was in vain gives that conversation a rest, in which more may gather.
 */
import { c, defineModule } from '../../server/module.ts'
import { Burials } from './burials.ts'
import { NS_RETRACT } from './search.ts'

export default defineModule({
  name: 'retract',
  summary: 'Replaces retracted messages in archives by tombstones',
  specs: [
    { xep: 424, version: '0.4.2', status: 'complete' },
    { xep: 45, version: '1.35.5', status: 'partial', note: 'occupants of rooms are told apart' },
    { xep: 308, version: '1.2.1', status: 'partial', note: 'corrections go with what they correct' },
  ],
  // Also when archives are turned on or off later: without them there is nothing to do, and nothing to announce.
  requires: ['mam'],
  config: c.object({
    searchBack: c
      .int()
      .min(1)
      .default(10_000)
      .describe(
        'How many messages of a conversation are searched for the one that is retracted, from the newest on',
      ),
  }),
  setup(ctx, { searchBack }) {
    // §2, §4
    for (const target of ['account', 'host'] as const)
      for (const feature of [NS_RETRACT, `${NS_RETRACT}#tombstone`]) ctx.disco.feature(target, feature)
    const burials = new Burials(ctx, ctx.use('archive'), searchBack)
    ctx.hook('archive:retraction', { phase: 'observe' }, (e) => burials.add(e))
    // What processes left that have ended, also when this one goes on for long.
    ctx.timers.daily('waiting', () => burials.resume())
    return { ready: () => void burials.resume() }
  },
})
