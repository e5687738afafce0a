/** PLAIN (RFC 4616): name and password as they are, so only on encrypted streams (RFC 6120 §13.8.3). */
import { SaslError } from '../../server/xmpp/errors.ts'
import { decodeUtf8 } from './encoding.ts'
import type { Attempt, Mechanism, MechanismEnv, Turn } from './mechanism.ts'

/** Longest password taken, in UTF-16 units; RFC 4616 §2 asks for at least 255 octets. */
const MAX_PASSWORD = 1024

/** The mechanism. `inClear`: also where everybody on the way can read the password; for tests on one machine. */
export function plain(env: MechanismEnv, inClear: boolean): Mechanism {
  return {
    name: 'PLAIN',
    rank: 10,
    needsTls: !inClear,
    password: true,
    usable: () => true,
    start: (attempt) => (message) => check(env, attempt, message),
  }
}

async function check(env: MechanismEnv, attempt: Attempt, message: Uint8Array): Promise<Turn> {
  // RFC 4616 §2: [authzid] NUL authcid NUL passwd, the last two not empty
  const [authzid = '', authcid = '', password = '', ...more] = decodeUtf8(message).split('\0')
  if (authcid === '' || password === '' || more.length > 0 || password.length > MAX_PASSWORD)
    throw new SaslError('malformed-request')
  const local = attempt.account(authcid)
  attempt.authorize(authzid, local)
  const auth = env.auth()
  if (auth.generations === undefined) {
    if (!(await auth.verify(local, password))) throw attempt.wrong()
    return { local }
  }
  const generation = await auth.generations.verify(local, password)
  if (generation === undefined) throw attempt.wrong()
  return { local, generation }
}
