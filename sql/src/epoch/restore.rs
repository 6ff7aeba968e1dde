//! Taking back what lies above a cut. Rows above it are deleted; what they had changed below it is folded again from
//! the events that are left.

use std::collections::BTreeSet;

use shared::{
    event::{Event, Fact, History, Kind},
    id::{ChatId, Position},
};
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Error,
    chats::chat_id,
    overlay::{DELETE_REACTIONS, Overlay, WRITE_REACTIONS, WRITE_REVISIONS},
};

type Transaction<'a> = deadpool_postgres::Transaction<'a>;

const SETTINGS: &str = "SET LOCAL statement_timeout = '300s'; SET LOCAL synchronous_commit = on";
const LOCK: &str = "SELECT epoch, seq FROM checkpoints WHERE partition = $1 FOR UPDATE";
const RECORD: &str =
    "INSERT INTO epochs (partition, epoch, cut_seq, cut_id, found_ts) VALUES ($1, $2, $3, $4, $5)";
const NEW_EPOCH: &str = "UPDATE checkpoints SET epoch = $2, updated_ts = $3 WHERE partition = $1";
const STEP_BACK: &str = "UPDATE checkpoints SET seq = $2, id = $3 WHERE partition = $1";

const LOSE_EVENTS: &str = "
    WITH lost AS (DELETE FROM events WHERE seq > $2 AND partition = $1 RETURNING chat_id, actor, kind, target)
    SELECT DISTINCT chat_id, actor, kind, target FROM lost";
const LOSE_REFUSED: &str = "DELETE FROM refused WHERE seq > $2 AND partition = $1";
const LOSE_DEAD_LETTERS: &str = "DELETE FROM dead_letters WHERE seq > $2 AND partition = $1";
const LOSE_INTERVALS: &str = "DELETE FROM memberships WHERE chat_id = ANY($1) AND from_seq > $2";
// An interval that a change of the role closed ends just before the event that closed it.
const REOPEN: &str = "
    UPDATE memberships SET to_seq = NULL, gone = false
    WHERE chat_id = ANY($1) AND (to_seq > $2 OR (to_seq = $2 AND NOT gone))";
const LOSE_CHATS: &str = "DELETE FROM chats WHERE id = ANY($1) AND created_seq > $2";
const COUNT_MEMBERS: &str = "
    UPDATE chats c SET member_count = (SELECT count(*) FROM memberships m WHERE m.chat_id = c.id AND m.to_seq IS NULL)
    WHERE c.id = ANY($1)";
const OWN_MARKS: &str = "
    UPDATE memberships m SET own_seq = greatest(
        CASE WHEN m.joined_seq = c.created_seq THEN 0 ELSE m.joined_seq END,
        coalesce((SELECT max(e.seq) FROM events e
                  WHERE e.chat_id = m.chat_id AND e.actor = m.user_id AND e.kind = 2 AND e.seq >= m.joined_seq), 0))
    FROM unnest($1::bigint[], $2::bigint[]) AS q (chat_id, user_id), chats c
    WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id AND c.id = m.chat_id AND m.own_seq > $3";
const READ_MARKS: &str = "
    UPDATE read_marks SET read_seq = least(read_seq, $2), delivered_seq = least(delivered_seq, $2)
    WHERE chat_id = ANY($1) AND (read_seq > $2 OR delivered_seq > $2)";
const LOSE_REVISIONS: &str = "
    DELETE FROM revisions r USING unnest($1::bigint[], $2::bigint[]) AS q (chat_id, seq)
    WHERE r.chat_id = q.chat_id AND r.seq = q.seq";
const LOSE_REACTIONS: &str = "
    DELETE FROM reactions r USING unnest($1::bigint[], $2::bigint[]) AS q (chat_id, seq)
    WHERE r.chat_id = q.chat_id AND r.seq = q.seq";
const ABOUT_MESSAGES: &str = "
    SELECT e.chat_id, e.seq, e.ts, e.payload FROM unnest($1::bigint[], $2::bigint[]) AS q (chat_id, seq)
    JOIN events e ON e.chat_id = q.chat_id AND e.seq > q.seq AND e.target = q.seq ORDER BY e.seq";
const ABOUT_CHATS: &str = "
    SELECT e.chat_id, e.payload FROM events e WHERE e.chat_id = ANY($1) AND e.kind IN (1, 9, 10) ORDER BY e.seq";
const CONFIGURE: &str = "UPDATE chats SET title = $2, history = $3 WHERE id = $1";

/// What the lost events had touched.
#[derive(Default)]
struct Touched {
    chats: BTreeSet<i64>,
    /// Chats whose members changed.
    membership: BTreeSet<i64>,
    /// Chats whose title or settings changed.
    settings: BTreeSet<i64>,
    /// Messages that were edited, deleted or reacted to.
    messages: BTreeSet<(i64, i64)>,
    senders: BTreeSet<(i64, i64)>,
}

/// See [`crate::Db::declare_cut`].
pub(super) async fn declare(
    transaction: &Transaction<'_>,
    partition: i16,
    expected: u32,
    cut: Position,
    now_ms: u64,
) -> Result<Option<u32>, Error> {
    transaction.batch_execute(SETTINGS).await?;
    let Some(row) = transaction.query_opt(LOCK, &[&partition]).await? else { return Ok(None) };
    let (epoch, seq): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
    if epoch != expected as i32 {
        return Ok(None);
    }
    let (next, cut_seq, cut_id, now) = (epoch + 1, cut.seq.as_i64(), cut.id.as_i64(), now_ms as i64);
    transaction.execute(RECORD, &[&partition, &next, &cut_seq, &cut_id, &now]).await?;
    transaction.execute(NEW_EPOCH, &[&partition, &next, &now]).await?;
    if seq > cut_seq {
        transaction.execute(STEP_BACK, &[&partition, &cut_seq, &cut_id]).await?;
        take_back(transaction, partition, cut_seq).await?;
    }
    Ok(Some(next as u32))
}

async fn take_back(transaction: &Transaction<'_>, partition: i16, cut: i64) -> Result<(), Error> {
    let lost = transaction.query(LOSE_EVENTS, &[&partition, &cut]).await?;
    let touched = Touched::of(&lost)?;
    transaction.execute(LOSE_REFUSED, &[&partition, &cut]).await?;
    transaction.execute(LOSE_DEAD_LETTERS, &[&partition, &cut]).await?;
    let membership: Vec<i64> = touched.membership.iter().copied().collect();
    for statement in [LOSE_INTERVALS, REOPEN, LOSE_CHATS] {
        transaction.execute(statement, &[&membership, &cut]).await?;
    }
    transaction.execute(COUNT_MEMBERS, &[&membership]).await?;
    let (chats, users): (Vec<i64>, Vec<i64>) = touched.senders.iter().copied().unzip();
    transaction.execute(OWN_MARKS, &[&chats, &users, &cut]).await?;
    let chats: Vec<i64> = touched.chats.iter().copied().collect();
    transaction.execute(READ_MARKS, &[&chats, &cut]).await?;
    refold_messages(transaction, &touched).await?;
    refold_settings(transaction, &touched).await
}

impl Touched {
    fn of(lost: &[Row]) -> Result<Self, Error> {
        let mut touched = Self::default();
        for row in lost {
            let (chat, actor, kind): (i64, i64, i16) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            touched.chats.insert(chat);
            match u8::try_from(kind).ok().and_then(Kind::from_number) {
                Some(Kind::ChatCreated | Kind::MembersJoined | Kind::MemberLeft | Kind::RoleChanged) => {
                    touched.membership.insert(chat);
                }
                Some(Kind::TitleChanged | Kind::SettingsChanged) => {
                    touched.settings.insert(chat);
                }
                Some(Kind::MessageSent) => {
                    touched.senders.insert((chat, actor));
                }
                _ => {}
            }
            if let Some(target) = row.try_get::<_, Option<i64>>(3)? {
                touched.messages.insert((chat, target));
            }
        }
        Ok(touched)
    }
}

/// Edits, deletions and reactions of the touched messages, from the events that are left.
async fn refold_messages(transaction: &Transaction<'_>, touched: &Touched) -> Result<(), Error> {
    let (chats, seqs): (Vec<i64>, Vec<i64>) = touched.messages.iter().copied().unzip();
    let messages: &[&(dyn ToSql + Sync)] = &[&chats, &seqs];
    transaction.execute(LOSE_REVISIONS, messages).await?;
    transaction.execute(LOSE_REACTIONS, messages).await?;
    let rows = transaction.query(ABOUT_MESSAGES, messages).await?;
    let mut overlay = Overlay::default();
    for row in &rows {
        let (seq, ts): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        let payload: &[u8] = row.try_get(3)?;
        overlay.apply(chat_id(row.try_get(0)?)?, seq.into(), ts as u64, &decode(payload)?, payload);
    }
    let revisions = overlay.revisions();
    let (off, on) = (overlay.taken_off(), overlay.put_on());
    let columns: &[&(dyn ToSql + Sync)] =
        &[&revisions.chats, &revisions.seqs, &revisions.edited, &revisions.deleted, &revisions.payloads];
    transaction.execute(WRITE_REVISIONS, columns).await?;
    transaction.execute(DELETE_REACTIONS, &[&off.chats, &off.seqs, &off.emoji, &off.users]).await?;
    transaction.execute(WRITE_REACTIONS, &[&on.chats, &on.seqs, &on.emoji, &on.users, &on.at]).await?;
    Ok(())
}

/// Titles and settings of the touched chats, from the events that are left.
async fn refold_settings(transaction: &Transaction<'_>, touched: &Touched) -> Result<(), Error> {
    let chats: Vec<i64> = touched.settings.iter().copied().collect();
    let rows = transaction.query(ABOUT_CHATS, &[&chats]).await?;
    let mut settings: std::collections::BTreeMap<ChatId, (Option<String>, History)> = Default::default();
    for row in &rows {
        let chat = settings.entry(chat_id(row.try_get(0)?)?).or_default();
        match decode(row.try_get(1)?)?.fact {
            Fact::ChatCreated(created) => *chat = (created.title, created.history),
            Fact::TitleChanged(changed) => chat.0 = Some(changed.title),
            Fact::SettingsChanged(changed) => chat.1 = changed.history,
            _ => {}
        }
    }
    for (chat, (title, history)) in settings {
        transaction.execute(CONFIGURE, &[&chat.as_i64(), &title, &history.as_str()]).await?;
    }
    Ok(())
}

fn decode(payload: &[u8]) -> Result<Event, Error> {
    Event::decode(payload).map_err(|_| Error::Corrupt("a stored event does not decode"))
}
