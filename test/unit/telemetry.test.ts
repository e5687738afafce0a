/** Log lines and metrics. */
import { spawnSync } from 'node:child_process'
import { expect } from 'chai'
import { Telemetry } from '../../server/telemetry.ts'

const undoing = () => {
  const list: Disposable[] = []
  return {
    own: (d: Disposable): void => void list.push(d),
    undo: () => list.splice(0).forEach((d) => d[Symbol.dispose]()),
  }
}
const lines = async (telemetry: Telemetry, name: string): Promise<string[]> =>
  (await telemetry.registry.metrics())
    .split('\n')
    .filter((l) => l.startsWith(name))
    .toSorted()

describe('telemetry: metrics', () => {
  it('are named after product and module, one metric for all hosts', async () => {
    const telemetry = new Telemetry()
    const { own } = undoing()
    const a = telemetry.metrics('stream-limits', 'a.example', own).counter('refused', 'Refused streams')
    const b = telemetry.metrics('stream-limits', 'b.example', own).counter('refused', 'Refused streams')
    a.add()
    a.add(2)
    b.add()
    expect(await lines(telemetry, 'hermod_stream_limits_refused')).to.deep.equal([
      'hermod_stream_limits_refused{host="a.example"} 3',
      'hermod_stream_limits_refused{host="b.example"} 1',
    ])
  })

  it('the same counter asked for twice counts on, as after a reload of its module', async () => {
    const telemetry = new Telemetry()
    const first = undoing()
    telemetry.metrics('m', 'h', first.own).counter('c', 'help').add()
    first.undo()
    telemetry.metrics('m', 'h', undoing().own).counter('c', 'help').add()
    expect(await lines(telemetry, 'hermod_m_c')).to.deep.equal(['hermod_m_c{host="h"} 2'])
  })

  it('gauges are read when asked for, and gone with their module', async () => {
    const telemetry = new Telemetry()
    const a = undoing()
    let value = 1
    telemetry.metrics('m', 'a', a.own).gauge('g', 'help', () => value)
    telemetry.metrics('m', 'b', undoing().own).gauge('g', 'help', () => 7)
    expect(await lines(telemetry, 'hermod_m_g')).to.deep.equal([
      'hermod_m_g{host="a"} 1',
      'hermod_m_g{host="b"} 7',
    ])
    value = 5
    expect(await lines(telemetry, 'hermod_m_g')).to.include('hermod_m_g{host="a"} 5')
    a.undo()
    expect(await lines(telemetry, 'hermod_m_g')).to.deep.equal(['hermod_m_g{host="b"} 7'])
  })

  it('a gauge that was set up again is not removed by the undoing of the old one', async () => {
    const telemetry = new Telemetry()
    const old = undoing()
    telemetry.metrics('m', 'a', old.own).gauge('g', 'help', () => 1)
    telemetry.metrics('m', 'a', undoing().own).gauge('g', 'help', () => 2)
    old.undo()
    expect(await lines(telemetry, 'hermod_m_g')).to.deep.equal(['hermod_m_g{host="a"} 2'])
  })

  it('histograms have their unit in the name and buckets that fit it', async () => {
    const telemetry = new Telemetry()
    const metrics = telemetry.metrics('m', 'h', undoing().own)
    metrics.histogram('wait', 'help', 'seconds').observe(0.02)
    metrics.histogram('size', 'help', 'bytes').observe(2000)
    metrics.histogram('page', 'help', 'items').observe(50)
    expect(await lines(telemetry, 'hermod_m_wait_seconds_bucket')).to.include.members([
      'hermod_m_wait_seconds_bucket{le="0.01",host="h"} 0',
      'hermod_m_wait_seconds_bucket{le="0.05",host="h"} 1',
    ])
    expect(await lines(telemetry, 'hermod_m_size_bytes_sum')).to.deep.equal([
      'hermod_m_size_bytes_sum{host="h"} 2000',
    ])
    expect(await lines(telemetry, 'hermod_m_page_items_count')).to.deep.equal([
      'hermod_m_page_items_count{host="h"} 1',
    ])
  })

  it('keep the label apart from what is in it', async () => {
    const telemetry = new Telemetry()
    telemetry.metrics('m', 'a"} 9\nx{', undoing().own).counter('c', 'help').add()
    expect(await lines(telemetry, 'hermod_m_c')).to.deep.equal(['hermod_m_c{host="a\\"} 9\\nx{"} 1'])
    expect(await lines(telemetry, 'x{')).to.deep.equal([])
  })
})

/** What a process prints that logs at each level. */
function printed(level: string, pretty: boolean): string {
  const module = new URL('../../server/telemetry.ts', import.meta.url).href
  const code = `import { makeLog, makeLogger } from ${JSON.stringify(module)}
    const log = makeLog(makeLogger(${JSON.stringify(level)}, ${pretty}))
    log.debug('one')
    log.info('two', { host: 'example.org' })
    log.warn('three', { password: 'hunter2', account: { password: 'hunter2' } })
    log.error('four', { err: new Error('broken') })`
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' })
  return stdout
}

describe('telemetry: log', () => {
  it('is one JSON object a line, with time and level', () => {
    const entries = printed('debug', false)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(entries.map((e) => e['msg'])).to.deep.equal(['one', 'two', 'three', 'four'])
    expect(entries[1]).to.include({ level: 30, host: 'example.org' })
    for (const entry of entries)
      expect(Date.parse(String(entry['time']))).to.be.within(Date.now() - 60_000, Date.now())
    expect(entries[3]?.['err']).to.have.property('stack').that.contains('Error: broken')
  })

  it('leaves out what is below its level', () => {
    expect(printed('warn', false).trim().split('\n')).to.have.length(2)
    expect(printed('silent', false)).to.equal('')
  })

  it('hides passwords', () => {
    expect(printed('debug', false)).not.to.contain('hunter2')
    expect(printed('debug', true)).not.to.contain('hunter2')
  })

  it('is readable on a terminal', () => {
    expect(printed('info', true)).to.match(/^\S*\[\d\d:\d\d:\d\d\]\S* \S*INFO\S*: \S*two/)
  })
})
