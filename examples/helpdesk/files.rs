//! The files of tickets, on disk by their numbers: a name that somebody has typed is nothing to open.

use std::path::PathBuf;

use edri::prelude::*;
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::desk::find;
use crate::door::who;
use crate::events::*;

pub(crate) struct Files {
    pub(crate) folder: PathBuf,
}

impl Worker for Files {}

impl HandleConcurrent<Upload> for Files {
    async fn handle(&self, upload: &Upload, cx: &mut Context) -> Result<File, Failure> {
        let Upload { id, file_name } = upload;
        find(cx, *id, Some(who(cx)?)).await?;
        let number = Namespace::<i64>::new(cx.bus(), "numbers").increment("file", 1).await?;
        let path = self.path(number);
        let mut tunnel = cx.accept::<Upload>()?;
        let written = async {
            let mut file = fs::File::create(&path).await?;
            let mut bytes = 0;
            while let Some(chunk) = tunnel.recv().await? {
                file.write_all(&chunk).await?;
                bytes += chunk.len() as u64;
            }
            file.sync_all().await?;
            Ok::<_, Failure>(bytes)
        };
        let file = match written.await {
            Ok(bytes) => File { number, name: file_name.clone(), bytes },
            // Too long, or its sender has gone: what is there is of no use.
            Err(failure) => {
                let _ = fs::remove_file(&path).await;
                return Err(failure);
            }
        };
        cx.request(AmendTicket { id: *id, topic: None, file: Some(file.clone()) }).await?;
        Ok(file)
    }
}

impl HandleConcurrent<Download> for Files {
    async fn handle(&self, download: &Download, cx: &mut Context) -> Result<(), Failure> {
        let ticket = find(cx, download.id, Some(who(cx)?)).await?;
        let file = ticket.files.iter().find(|file| file.number == download.number);
        let file = file.ok_or_else(|| Failure::new("not_found", "there is no such file"))?;
        let mut disk = fs::File::open(self.path(file.number)).await?;
        let mut tunnel = cx.accept::<Download>()?;
        // Whatever it is, it is never shown as if the desk had written it.
        let headers = vec![("content-disposition".to_owned(), "attachment".to_owned())];
        tunnel.send(HttpPart::Head { status: 200, headers, length: Some(file.bytes) }).await?;
        loop {
            let mut chunk = Vec::with_capacity(64 << 10);
            if disk.read_buf(&mut chunk).await? == 0 {
                return Ok(());
            }
            tunnel.send(HttpPart::Bytes(chunk.into())).await?;
        }
    }
}

impl Files {
    fn path(&self, number: i64) -> PathBuf {
        self.folder.join(number.to_string())
    }
}
