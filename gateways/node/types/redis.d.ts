import type { RedisClientOptions } from 'redis'
import type { Changed, Content, Millis, Store, Stored } from './fetch.js'

/** connect-redis's options. */
export interface RedisStoreOptions {
  /** What keys begin with. Default: `sess:`. */
  prefix?: string | undefined
  /** Keep sessions until they are destroyed. Default: false. */
  disableTTL?: boolean | undefined
  /** Do not prolong sessions that are only read. Default: false. */
  disableTouch?: boolean | undefined
}

/** The commands that the store uses. */
export interface RedisCommands {
  get (key: string): Promise<any>
  pTTL (key: string): Promise<any>
  set (key: string, value: string, options?: any): Promise<any>
  expire (key: string, seconds: number): Promise<any>
  exists (key: string): Promise<any>
  del (key: string): Promise<any>
  eval (script: string, options?: any): Promise<any>
}

/** Sessions in connect-redis's keys and values. */
export class RedisStore implements Store {
  /** `client`: a connected client of the package `redis`, of a server, a cluster or sentinels. */
  constructor (client: RedisCommands, options?: RedisStoreOptions)
  /**
   * Connects, or rejects with the reason. Other options are those of the package `redis`. A connection
   * that is lost later is opened again.
   */
  static connect (url: string, options?: RedisStoreOptions & RedisClientOptions): Promise<RedisStore>
  /** Closes the connection that `connect` opened. */
  close (): Promise<void>
  load (id: string): Promise<Stored | undefined>
  create (id: string, content: Content): Promise<boolean>
  replace (id: string, content: Content, expected?: string): Promise<Changed>
  touch (id: string, expires: Millis): Promise<boolean>
  delete (id: string, expected?: string): Promise<Changed>
}
