//! An ordinary AWS SDK program: the default chain, no settings. Prints its AWS identity, then reads, writes or deletes an object; or it
//! exchanges its token again and again.

use std::time::Duration;

use anyhow::{Context, bail};
use aws_config::BehaviorVersion;
use aws_sdk_s3::error::DisplayErrorContext;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if arguments == ["exchange"] {
        return exchange().await;
    }
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;

    let caller = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await;
    let caller =
        caller.map_err(|e| anyhow::anyhow!("{}", DisplayErrorContext(e))).context("no credentials")?;
    println!("caller: {}", caller.arn().unwrap_or_default());

    let s3 = aws_sdk_s3::Client::new(&config);
    match arguments.as_slice() {
        ["get", bucket, key] => {
            let object = s3.get_object().bucket(*bucket).key(*key).send().await;
            let object =
                object.map_err(|e| anyhow::anyhow!("{}", DisplayErrorContext(e))).context("not read")?;
            println!("object: {}", String::from_utf8(object.body.collect().await?.to_vec())?);
        }
        ["put", bucket, key, text] => {
            let put =
                s3.put_object().bucket(*bucket).key(*key).body(text.as_bytes().to_vec().into()).send().await;
            put.map_err(|e| anyhow::anyhow!("{}", DisplayErrorContext(e))).context("not written")?;
            println!("written");
        }
        ["delete", bucket, key] => {
            let deleted = s3.delete_object().bucket(*bucket).key(*key).send().await;
            deleted.map_err(|e| anyhow::anyhow!("{}", DisplayErrorContext(e))).context("not deleted")?;
            println!("deleted");
        }
        _ => bail!("usage: workload get BUCKET KEY | put BUCKET KEY TEXT | delete BUCKET KEY | exchange"),
    }
    Ok(())
}

/// Exchanges the token that is mounted now, twice a second until it is ended. One line each.
async fn exchange() -> anyhow::Result<()> {
    let mut every = tokio::time::interval(Duration::from_millis(500));
    loop {
        every.tick().await;
        // A new configuration has no credentials yet.
        let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
        match aws_sdk_sts::Client::new(&config).get_caller_identity().send().await {
            Ok(caller) => println!("exchanged: {}", caller.arn().unwrap_or_default()),
            Err(error) => println!("refused: {}", DisplayErrorContext(error)),
        }
    }
}
