//! The control API over HTTP.

use aws_sim::{Behaviour, FederatedProviderForm, Settings, Sim, control};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_behaviour_is_replaced_as_a_whole() {
    let sim = Sim::new(Settings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(control::serve(sim.clone(), listener));
    let put = async |body: &str| control::call(address, "PUT", "/behaviour", body.to_owned()).await;

    put(r#"{"lag_milliseconds": 5, "federated_provider": "HostPath"}"#).await.unwrap();
    assert_eq!(sim.behaviour().lag_milliseconds, 5);
    assert_eq!(sim.behaviour().federated_provider, FederatedProviderForm::HostPath);
    let read = control::call(address, "GET", "/behaviour", String::new()).await.unwrap();
    assert_eq!(serde_json::from_str::<Behaviour>(&read).unwrap(), sim.behaviour());

    assert!(put(r#"{"lag": 5}"#).await.is_err(), "an unknown field is refused");
    put("{}").await.unwrap();
    assert_eq!(sim.behaviour(), Behaviour::default(), "an absent field has its default");
}
