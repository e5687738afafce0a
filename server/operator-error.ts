/** Errors for the operator: what is wrong outside of the program and can be put right there. */

/** Keeps the server from starting or a command from being done. The message is one sentence for the operator, shown without a stack. */
export class OperatorError extends Error {
  override readonly name: string = 'OperatorError'
}
