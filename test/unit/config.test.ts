/** The configuration file: defaults, mistakes with their lines, options of modules. */
import { expect } from 'chai'
import { type Config, ConfigProblems, parseConfigText } from '../../server/config.ts'
import type { AnyModule } from '../../server/loader.ts'
import { c } from '../../server/module.ts'

const def = (name: string, config?: AnyModule['config']): AnyModule => ({
  name,
  summary: name,
  specs: [],
  setup: () => undefined,
  ...(config === undefined ? {} : { config }),
})
const modules = new Map(
  [
    def('ping', c.object({ timeout: c.duration('30s') }) as unknown as NonNullable<AnyModule['config']>),
    def('register'),
    def('roster'),
  ].map((d) => [d.name, d]),
)
const parse = (text: string): Config => parseConfigText(text, modules, 'test.yaml')
const problems = (text: string): string[] => {
  try {
    parse(text)
  } catch (error) {
    if (error instanceof ConfigProblems) return error.message.split('\n')
    throw error
  }
  return []
}

describe('config', () => {
  it('redis needs storage that its other users can see', () => {
    const redis = 'redis: { url: env:REDIS }'
    expect(problems(redis)).to.deep.equal([
      'test.yaml:1: redis: needs storage.driver mongodb: other processes cannot see the data of lmdb',
    ])
    expect(problems(`storage: { driver: memory }\n${redis}`)).to.deep.equal([
      'test.yaml:2: redis: needs storage.driver mongodb: other processes cannot see the data of memory',
    ])
    const config = parse(`storage: { driver: mongodb, url: env:MONGO }\n${redis}`)
    expect(config.redis).to.deep.equal({ url: 'env:REDIS', prefix: 'hermod' })
    expect(parse('').redis).to.equal(undefined)
    expect(problems("redis: { url: x, prefix: 'a:b' }")).to.deep.equal([
      'test.yaml:1: redis.prefix: letters, digits, - and _',
    ])
  })

  it('has a default for everything', () => {
    const config = parse('')
    expect(config.hosts.map((h) => h.name)).to.deep.equal(['localhost'])
    expect(config.storage).to.deep.equal({ driver: 'lmdb', path: './data', durable: true })
    expect(config.listen.client).to.deep.equal([{ port: 5222, proxyProtocol: false }])
    expect(config.limits.stanzaBytes).to.equal(262_144)
  })

  it('says line and option of each mistake', () => {
    const text = [
      'hosts: [example.org]',
      'listen:',
      '  client:',
      '    - port: 99999',
      'limit: {}',
      'limits:',
      '  idle: 5 fortnights',
    ].join('\n')
    const found = problems(text)
    expect(found).to.have.length(3)
    expect(found[0]).to.match(/^test\.yaml:4: listen\.client\[0\]\.port: /)
    expect(found[1]).to.match(/^test\.yaml:7: limits\.idle: expected a quantity such as 30s/)
    expect(found[2]).to.equal('test.yaml:5: limit: there is no such option')
  })

  it('says where the syntax is wrong, and refuses a key given twice', () => {
    expect(problems('hosts: [a\nlog: {}')[0]).to.match(/^test\.yaml:\d: syntax: /)
    expect(problems('log: {}\nlog: {}')[0]).to.match(/^test\.yaml:2: syntax: .*unique/)
  })

  it('refuses what is no domain name', () => {
    for (const name of ['a@b', 'a/b', 'EXAMPLE.org', 'a b'])
      expect(problems(`hosts: ['${name}']`)[0]).to.contain('is not a domain name')
  })

  it('turns modules on and off and gives them options, for all hosts and for one', () => {
    const config = parse(
      [
        'hosts:',
        '  a.example:',
        '    modules: { ping: false }',
        '  b.example:',
        '    modules: { ping: { timeout: 5s } }',
        'modules:',
        '  roster: false',
        '  ping: { timeout: 9s }',
      ].join('\n'),
    )
    const [a, b] = config.hosts
    expect(a!.modules.has('ping')).to.equal(false)
    expect(a!.modules.has('roster')).to.equal(false)
    expect(a!.modules.has('register')).to.equal(true)
    expect(b!.modules.get('ping')).to.deep.equal({ timeout: '5s' })
    expect(config.serverModules.get('ping')).to.deep.equal({ timeout: '9s' })
  })

  it('checks the options of modules where they stand', () => {
    const text = ['modules:', '  ping:', '    timeout: soon', '  pong: true', '  roster: { a: 1 }'].join('\n')
    expect(problems(text)).to.deep.equal([
      'test.yaml:3: modules.ping.timeout: expected a quantity such as 30s (units: ms, s, min, h, d), got "soon"',
      'test.yaml:4: modules.pong: there is no such module',
      'test.yaml:5: modules.roster: this module has no options',
    ])
  })
})
