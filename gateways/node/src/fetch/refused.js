/** Thrown by a store that can never store a text. */
export class Refused extends Error {}
