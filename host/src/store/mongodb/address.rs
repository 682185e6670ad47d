//! Reads a `mongodb://` address, including the options of the Node driver.

use mongodb::error::ErrorKind;
use mongodb::options::{Acknowledgment, ClientOptions};

use super::Hidden;
use crate::store::StoreError;

/// Options of the Node driver, including old ones, that have no effect here.
const WITHOUT_EFFECT: [&str; 32] = [
    "autoselectfamily",
    "autoselectfamilyattempttimeout",
    "bsonregexp",
    "checkkeys",
    "compressors",
    "enableutf8validation",
    "family",
    "fieldsasraw",
    "forceserverobjectid",
    "fsync",
    "ignoreundefined",
    "keepalive",
    "keepaliveinitialdelay",
    "minheartbeatfrequencyms",
    "mininternalbuffersize",
    "monitorcommands",
    "nodelay",
    "promotebuffers",
    "promotelongs",
    "promotevalues",
    "raw",
    "serializefunctions",
    "sockettimeoutms",
    "timeoutms",
    "usebigint64",
    "usecreateindex",
    "usefindandmodify",
    "usenewurlparser",
    "useunifiedtopology",
    "uuidrepresentation",
    "waitqueuetimeoutms",
    "zlibcompressionlevel",
];

/// Options that the Node driver names differently.
const RENAMED: [(&str, &str); 2] = [("j", "journal"), ("wtimeout", "wtimeoutms")];

/// Returns the client's options, and the names of the address's options that have no effect.
pub(super) async fn read(uri: &str) -> Result<(ClientOptions, Vec<&str>), StoreError> {
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (mut options, mut without_effect) = (Vec::new(), Vec::new());
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let plain = name.to_ascii_lowercase();
        if WITHOUT_EFFECT.contains(&&*plain) {
            without_effect.push(name);
            continue;
        }
        let renamed = RENAMED.iter().find(|(from, _)| *from == plain);
        options.push((name, format!("{}={value}", renamed.map_or(name, |(_, to)| to))));
    }
    let database = place.splitn(4, '/').nth(3).unwrap_or_default();
    if database.contains(['&', '=']) {
        return Err(StoreError::new(
            "the database name in the mongodb:// address contains & or =: options begin after a ?",
        ));
    }
    // An address without a database ends with its hosts.
    let begins_query = if place.matches('/').count() < 3 { "/?" } else { "?" };
    let texts: Vec<_> = options.iter().map(|(_, text)| &**text).collect();
    let whole = match texts.is_empty() {
        true => place.to_owned(),
        false => format!("{place}{begins_query}{}", texts.join("&")),
    };
    let error = match ClientOptions::parse(&whole).await {
        Ok(client) => {
            let write = client.write_concern.as_ref().and_then(|it| it.w.as_ref());
            if write == Some(&Acknowledgment::Nodes(0)) {
                return Err(StoreError::new(
                    "the mongodb:// address sets w=0: failed writes would go unnoticed",
                ));
            }
            return Ok((client, without_effect));
        }
        Err(error) => error,
    };
    // Omits the driver's text, which may quote a part of the address.
    let why = match error.kind.as_ref() {
        ErrorKind::DnsResolve { .. } => {
            "DNS has no servers for the mongodb+srv:// address, or cannot be reached".to_owned()
        }
        _ => match wrong(&options).await {
            Some(name) => format!(
                "the option {name} of the mongodb:// address is unknown or has an invalid value"
            ),
            None => {
                "the mongodb:// address is not valid. In a user's name and password, @ : / ? # \
                 [ ] % must be written %40 %3A %2F %3F %23 %5B %5D %25"
                    .to_owned()
            }
        },
    };
    Err(StoreError::new(why).caused_by(Hidden::from(error)))
}

/// Returns the option whose removal makes the others valid.
async fn wrong<'u>(options: &[(&'u str, String)]) -> Option<&'u str> {
    let is_right = async |without: Option<usize>| {
        let others = options.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let others: Vec<_> = others.map(|(_, (_, text))| &**text).collect();
        // A fixed host, so that nothing is resolved.
        let uri = format!("mongodb://user:password@localhost/?{}", others.join("&"));
        ClientOptions::parse(uri).await.is_ok()
    };
    if is_right(None).await {
        return None;
    }
    for (at, (name, _)) in options.iter().enumerate() {
        if is_right(Some(at)).await {
            // Other characters may be a password that follows an unescaped question mark.
            return Some(*name)
                .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn options_of_nodes_driver_that_change_nothing_are_named() {
        let uri = "mongodb://h/db?socketTimeoutMS=1000&compressors=zlib&zlibCompressionLevel=9&\
                   timeoutMS=5&useNewUrlParser=true&w=1&j=true&wtimeout=7&maxPoolSize=3";
        let (client, without_effect) = read(uri).await.unwrap();
        let names = "socketTimeoutMS compressors zlibCompressionLevel timeoutMS useNewUrlParser";
        assert_eq!(without_effect.join(" "), names);
        let write = client.write_concern.unwrap();
        assert_eq!((write.w, write.journal), (Some(Acknowledgment::Nodes(1)), Some(true)));
        assert_eq!(write.w_timeout.unwrap().as_millis(), 7);
        assert_eq!((client.max_pool_size, client.default_database), (Some(3), Some("db".into())));
        let (client, _) = read("mongodb://h?socketTimeoutMS=1&replicaSet=rs0").await.unwrap();
        assert_eq!(client.repl_set_name, Some("rs0".into()));
        assert!(read("mongodb://h?socketTimeoutMS=1").await.is_ok());
    }

    #[tokio::test]
    async fn an_option_that_is_wrong_is_named_and_nothing_of_the_address_is_told() {
        for (uri, named) in [
            ("mongodb://u:hunter2@h/db?w=1&maxPoolSize=many", "the option maxPoolSize "),
            ("mongodb://u:hunter2@h/db?maxpolsize=3&w=1", "the option maxpolsize "),
            ("mongodb://u:hunter2@h/db?w=0", "w=0"),
            ("mongodb://u:hunter2@h:port/db", "address is not valid"),
            ("mongodb://u:hunter2@", "address is not valid"),
            ("mongodb://u:what?hunter2@h/db", "address is not valid"),
        ] {
            let error = read(uri).await.unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("hunter2"), "{uri}: {error}");
        }
    }
}
