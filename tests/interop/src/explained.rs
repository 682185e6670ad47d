//! Demonstrates the remaining differences. `docs/migration.md` gives the reasons, and
//! `docs/configuration.md` those of the safe preset.

use mongodb::bson::doc;

use crate::case::{Case, CookieIn, Deed, Foreign, Request, START, Set, Settings, Step};
use crate::world::{Rig, Seen, World};

/// Returns both sides' last step of a case in which edge-session handles all requests on its side.
async fn last_of(rig: &Rig, case: &Case) -> Result<(Seen, Seen), String> {
    let mut worlds = [World::new(rig, case, false)?, World::new(rig, case, true)?];
    let mut last = Vec::new();
    for world in &mut worlds {
        let mut seen = None;
        for step in &case.steps {
            seen = world.step(step).await?.or(seen);
        }
        world.clean().await;
        last.extend(seen);
    }
    let [theirs, ours] = <[Seen; 2]>::try_from(last).map_err(|_| "a case has requests")?;
    Ok((theirs, ours))
}

fn request(deeds: Vec<Deed>) -> Step {
    Step::Request(Request {
        after: 0,
        path: "/",
        tls: false,
        proto: None,
        cookie: CookieIn::Last,
        deeds,
        app_cookie: false,
        by_us: true,
    })
}

fn set(key: &'static str, value: &str) -> Deed {
    Deed::Set(key, value.to_owned())
}

fn text(text: &str) -> Step {
    Step::Write(Foreign::Text(text.to_owned()))
}

fn case(set: Set, settings: Settings, steps: Vec<Step>) -> Case {
    Case { set, settings, steps }
}

macro_rules! check {
    ($shown:expr, $theirs:expr, $ours:expr) => {
        if !$shown {
            return Err(format!(
                "{}: {} does not hold\ntheirs: {:#?}\nours: {:#?}",
                line!(),
                stringify!($shown),
                $theirs,
                $ours
            ));
        }
    };
}

/// Demonstrates all differences.
pub(crate) async fn check(rig: &Rig) -> Result<usize, String> {
    let plain = Settings::plain;
    let visit = || request(vec![set("a", "1")]);

    // An invalid session: express-session fails; edge-session starts a new one and leaves it
    // unchanged.
    let broken = ["", "{", "[]", "{}", "{\"cookie\":null}", "{\"cookie\":5}", "{\"a\":1}"];
    for broken in broken.into_iter().chain(["{\"cookie\":{\"originalMaxAge\":\"1h\"}}"]) {
        let steps = vec![visit(), text(broken), request(vec![])];
        let (theirs, ours) = last_of(rig, &case(Set::Text, plain(), steps)).await?;
        check!(theirs.status == 500 && ours.status == 200, theirs, ours);
        check!(theirs.documents == ours.documents, theirs, ours);
    }

    // edge-session keeps what JavaScript would rewrite, byte for byte.
    let odd = "{\"cookie\":{\"originalMaxAge\":null,\"expires\":null,\"path\":\"/\",\"httpOnly\":true}, \"o\" : 1.0}";
    let steps = vec![visit(), text(odd), request(vec![set("a", "1")])];
    let mut odd_case = case(Set::Text, plain(), steps);
    odd_case.settings.shows_raw = true;
    let (theirs, ours) = last_of(rig, &odd_case).await?;
    check!(theirs.documents[0].contains("\\\"o\\\":1,\\\"a\\\":1}"), theirs, ours);
    check!(ours.documents[0].contains("\\\"o\\\":1.0,\\\"a\\\":1}"), theirs, ours);

    // connect-mongo's touchAfter adds `lastModified` to the values and removes it when it saves, so
    // express-session sees a change in every session that is resaved.
    let mut settings = plain();
    (settings.resave, settings.max_age, settings.touch_after) = (true, Some(60_000.0), 5);
    let steps = vec![visit(), request(vec![])];
    let (theirs, ours) = last_of(rig, &case(Set::Times, settings, steps)).await?;
    check!(theirs.cookies.len() == 1 && ours.cookies.is_empty(), theirs, ours);
    check!(theirs.documents == ours.documents, theirs, ours);

    // In a document, a number that a request does not change keeps its type.
    let steps = vec![
        visit(),
        Step::Write(Foreign::Set(doc! { "session.o": 7_i64, "session.2": 1.0 })),
        request(vec![set("a", "2")]),
    ];
    let (theirs, ours) = last_of(rig, &case(Set::Documents, plain(), steps)).await?;
    check!(theirs.documents[0].contains("Int32(7)"), theirs, ours);
    check!(ours.documents[0].contains("Int64(7)"), theirs, ours);

    // A text that is not Unicode cannot be stored in a document; connect-mongo stores a different
    // one.
    let steps = vec![visit(), request(vec![set("a", "\"\\ud800\"")])];
    let (theirs, ours) = last_of(rig, &case(Set::Documents, plain(), steps)).await?;
    check!(theirs.documents[0].contains('\u{fffd}') && ours.status == 500, theirs, ours);

    // If both a lifetime and an expiry are given, express-session uses the last one; edge-session
    // uses the lifetime.
    let mut settings = plain();
    (settings.max_age, settings.expires) = (Some(1000.0), Some(60_000));
    let (theirs, ours) = last_of(rig, &case(Set::Text, settings, vec![visit()])).await?;
    check!(theirs.documents[0].contains("originalMaxAge\\\":60000"), theirs, ours);
    check!(ours.documents[0].contains("originalMaxAge\\\":1000"), theirs, ours);

    // In edge-session's stores, a session that expired before 1970 expired in 1970.
    let steps = vec![request(vec![Deed::MaxAge(Some(-2e12)), set("a", "1")])];
    let (theirs, ours) = last_of(rig, &case(Set::Text, plain(), steps)).await?;
    check!(theirs.cookies == ours.cookies && theirs.cookies[0].contains("1966"), theirs, ours);
    check!(theirs.documents[0].contains("expires: -2000000000000 ms"), theirs, ours);
    check!(ours.documents[0].contains(&format!("expires: -{START} ms")), theirs, ours);

    // express-session has a session at a path that begins with the cookie's path without being
    // below it.
    let mut settings = plain();
    settings.path = "/app";
    let mut outside = visit();
    if let Step::Request(request) = &mut outside {
        request.path = "/application";
    }
    let (theirs, ours) = last_of(rig, &case(Set::Text, settings, vec![outside])).await?;
    check!(theirs.status == 200 && ours.status == 200, theirs, ours);
    check!(theirs.cookies.len() == 1 && theirs.documents.len() == 1, theirs, ours);
    check!(ours.cookies.is_empty() && ours.documents.is_empty(), theirs, ours);

    // With the safe preset, an invalid cookie does not hide the next one …
    let mut after_bogus = request(vec![]);
    if let Step::Request(request) = &mut after_bogus {
        request.cookie = CookieIn::AfterBogus;
    }
    let steps = vec![visit(), after_bogus];
    let (theirs, ours) = last_of(rig, &case(Set::Safe, plain(), steps.clone())).await?;
    check!(theirs.data.as_ref().is_some_and(|data| data.is_empty()), theirs, ours);
    check!(ours.data.as_ref().is_some_and(|data| data.contains_key("a")), theirs, ours);
    // … but with the express preset it does, as in express-session.
    let (theirs, ours) = last_of(rig, &case(Set::Text, plain(), steps)).await?;
    check!(theirs == ours, theirs, ours);

    // With the safe preset, a late request to a moved session does not start another one, whose
    // cookie would replace the new one.
    let mut late = request(vec![set("a", "2")]);
    if let Step::Request(request) = &mut late {
        request.cookie = CookieIn::First;
    }
    let steps = vec![visit(), request(vec![Deed::Regenerate, set("user", "1")]), late];
    for keeps_notes in [true, false] {
        let mut settings = plain();
        settings.keeps_notes = keeps_notes;
        let (theirs, ours) = last_of(rig, &case(Set::Safe, settings, steps.clone())).await?;
        check!(theirs.status == 200 && theirs.cookies.len() == 1, theirs, ours);
        if keeps_notes {
            check!(ours.status == 503 && ours.cookies.is_empty(), theirs, ours);
            check!(ours.documents.len() == 1 && theirs.documents.len() == 2, theirs, ours);
        } else {
            check!(theirs == ours, theirs, ours);
        }
    }
    Ok(8)
}
