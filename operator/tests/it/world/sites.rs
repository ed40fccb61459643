//! Public hosts beside AWS's own: a CDN in front of a bucket, or a web server of somebody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_sim::Sim;
use bytes::Bytes;
use http::Uri;

use super::World;

/// What answers for a host.
#[derive(Debug, Clone)]
pub enum Site {
    /// A CDN that passes the path on to this host of S3.
    Cdn(String),
    /// A web server with these files, by path.
    Files(BTreeMap<String, Vec<u8>>),
}

/// All hosts that are not AWS's, as anybody on the internet sees them, AWS among them.
#[derive(Clone, Default)]
pub struct Sites(Arc<Mutex<BTreeMap<String, Site>>>);

impl Sites {
    /// One anonymous read.
    pub async fn get(&self, sim: &Sim, uri: Uri) -> Result<(u16, Vec<u8>), String> {
        let host = uri.host().unwrap_or_default().to_owned();
        let site = self.0.lock().unwrap().get(&host).cloned();
        let uri = match site {
            None => uri,
            Some(Site::Cdn(bucket)) => format!("https://{bucket}{}", uri.path()).parse().unwrap(),
            Some(Site::Files(files)) => {
                return Ok(files.get(uri.path()).map_or((404, Vec::new()), |body| (200, body.clone())));
            }
        };
        let request = http::Request::get(uri).body(Bytes::new()).map_err(|e| e.to_string())?;
        let response = sim.handle(request).await.map_err(|_| "connection lost".to_owned())?;
        Ok((response.status().as_u16(), response.into_body().to_vec()))
    }
}

impl World {
    /// Makes a host public.
    pub fn serve(&self, host: &str, site: Site) {
        self.sites.0.lock().unwrap().insert(host.to_owned(), site);
        let (sites, sim) = (self.sites.clone(), self.sim.clone());
        self.sim.fetch_with(Arc::new(move |url: String| {
            let (sites, sim) = (sites.clone(), sim.clone());
            Box::pin(async move {
                let uri = url.parse::<Uri>().map_err(|e| e.to_string())?;
                sites.get(&sim, uri).await.map(|(status, body)| (status, Bytes::from(body)))
            })
        }));
    }
}
