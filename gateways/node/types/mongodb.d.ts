import type { Collection, MongoClientOptions } from 'mongodb'
import type { Changed, Content, Millis, Store, Stored } from './fetch.js'

export interface MongoStoreOptions extends MongoClientOptions {
  /** Default: the one in the URI, otherwise `test`. */
  dbName?: string | undefined
  /** Default: `sessions`. */
  collection?: string | undefined
  /** `native`, the default: creates a TTL index. */
  autoRemove?: 'native' | 'disabled' | undefined
}

/** Sessions in connect-mongo's documents, as JSON text. */
export class MongoStore implements Store {
  constructor (collection: Collection<any>)
  static connect (uri: string, options?: MongoStoreOptions): Promise<MongoStore>
  /** Closes the connection that `connect` opened. */
  close (): Promise<void>
  load (id: string): Promise<Stored | undefined>
  create (id: string, content: Content): Promise<boolean>
  replace (id: string, content: Content, expected?: string): Promise<Changed>
  touch (id: string, expires: Millis): Promise<boolean>
  delete (id: string, expected?: string): Promise<Changed>
}
