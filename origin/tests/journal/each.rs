//! What every journal promises.

use super::*;

#[tokio::test]
async fn what_is_appended_is_read_in_order_and_nothing_behind_the_end() {
    each_journal(async |journal| {
        let (stream, mut writer) = new(&*journal, None).await;
        writer.append(&[chunk("a")]).await.unwrap();
        writer.append(&[chunk("b\n\nevent: done"), chunk("c")]).await.unwrap();
        assert_eq!(stream.buffer.len(), 3);
        writer.append(&[chunk("d"), failed(), chunk("e")]).await.unwrap();
        let _ = writer.append(&[chunk("f")]).await;
        let found = journal.find(stream.id()).await.unwrap().unwrap();
        assert_eq!(found.buffer.len(), 5);
        assert_eq!(text(&found).await, "a|b\n\nevent: done|c|d|!");
        assert_eq!(found.buffer.terminal().unwrap().failed, Some(Problem::abandoned()));
    })
    .await;
}

#[tokio::test]
async fn fault_10_of_starts_with_one_key_at_once_one_opens_a_stream() {
    each_journal(async |journal| {
        let opened = join_all((0..10).map(|_| journal.open(id(), Opening::default(), Some(claim(0, 1))))).await;
        let (mut new, mut existing) = (Vec::new(), Vec::new());
        for opened in opened {
            match opened.unwrap() {
                Opened::New(stream, writer) => new.push((stream, writer)),
                Opened::Taken => existing.push(attached(&*journal, &claim(0, 1)).await),
            }
        }
        let [(stream, writer)] = &mut new[..] else { panic!("one is new, not {}", new.len()) };
        writer.append(&[chunk("a"), failed()]).await.unwrap();
        assert_eq!(existing.len(), 9);
        for other in existing {
            assert_eq!(other.id(), stream.id());
            assert_eq!(text(&other).await, "a|!");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_belongs_to_what_it_was_first_sent_with_until_it_is_freed() {
    each_journal(async |journal| {
        let (stream, mut writer) = new(&*journal, Some(claim(0, 1))).await;
        assert!(matches!(journal.open(id(), Opening::default(), Some(claim(0, 2))).await.unwrap(), Opened::Taken));
        assert!(matches!(journal.lookup(&claim(0, 2)).await.unwrap(), Some(Claimed::ByAnother)));
        writer.append(&[failed()]).await.unwrap();
        let again = attached(&*journal, &claim(0, 1)).await;
        assert_eq!(again.id(), stream.id());
        journal.discard(stream.id(), Some(&claim(0, 1).key)).await.unwrap();
        let (other, _writer) = new(&*journal, Some(claim(0, 2))).await;
        // Not the stream's any more: it stays with the other.
        journal.discard(stream.id(), Some(&claim(0, 1).key)).await.unwrap();
        let kept = attached(&*journal, &claim(0, 2)).await;
        assert_eq!(kept.id(), other.id());
    })
    .await;
}

#[tokio::test]
async fn a_stream_whose_writer_is_dropped_ends_as_failed() {
    each_journal(async |journal| {
        let (stream, mut writer) = new(&*journal, None).await;
        writer.append(&[chunk("a")]).await.unwrap();
        drop(writer);
        assert_eq!(text(&stream).await, "a|!");
        assert_eq!(kind(&stream), Kind::Internal);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_stream_is_not_found() {
    each_journal(async |journal| assert!(journal.find(&id()).await.unwrap().is_none())).await;
}
