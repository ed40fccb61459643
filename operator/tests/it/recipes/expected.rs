//! What each binding of a recipe may do, and what it may not.

/// An action and a resource, and one condition key with its value.
pub type Request = (&'static str, &'static str, Option<(&'static str, &'static str)>);

/// What the `ServiceAccount` of a binding may do, and what it may not, by examples; neither for a role made elsewhere.
pub struct Expected {
    pub file: &'static str,
    pub binding: &'static str,
    pub allowed: &'static [Request],
    pub refused: &'static [Request],
}

const ZONE: &str = "arn:aws:route53:::hostedzone/Z0123456789EXAMPLE";
const OTHER_ZONE: &str = "arn:aws:route53:::hostedzone/Z9999999999EXAMPLE";
const RECORDS: &str = "route53:ChangeResourceRecordSets";
const TYPES: &str = "route53:ChangeResourceRecordSetsRecordTypes";
const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER_KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab";
const DOCUMENTS: &str = "arn:aws:s3:::oidc-111122223333-eu-central-1-an/homelab/openid/v1/jwks";

pub const EXPECTED: &[Expected] = &[
    Expected {
        file: "cert-manager-route53.yaml",
        binding: "cert-manager",
        allowed: &[
            (RECORDS, ZONE, Some((TYPES, "TXT"))),
            ("route53:GetChange", "arn:aws:route53:::change/C1", None),
            ("route53:ListHostedZonesByName", "*", None),
        ],
        refused: &[
            (RECORDS, ZONE, Some((TYPES, "A"))),
            (RECORDS, OTHER_ZONE, Some((TYPES, "TXT"))),
            ("route53:DeleteHostedZone", ZONE, None),
        ],
    },
    Expected {
        file: "cloudnative-pg.yaml",
        binding: "orders",
        allowed: &[
            ("s3:PutObject", "arn:aws:s3:::backups-of-example-com/orders/base/1/data.tar", None),
            ("s3:GetObject", "arn:aws:s3:::backups-of-example-com/orders/wals/1", None),
            ("s3:ListBucket", "arn:aws:s3:::backups-of-example-com", None),
        ],
        refused: &[
            ("s3:GetObject", "arn:aws:s3:::backups-of-example-com/invoices/wals/1", None),
            ("s3:PutObject", "arn:aws:s3:::velero-of-example-com/orders/x", None),
        ],
    },
    Expected { file: "existing-role.yaml", binding: "importer", allowed: &[], refused: &[] },
    Expected {
        file: "external-dns.yaml",
        binding: "external-dns",
        allowed: &[
            (RECORDS, ZONE, Some((TYPES, "A"))),
            ("route53:ListTagsForResources", ZONE, None),
            ("route53:ListHostedZones", "*", None),
        ],
        refused: &[(RECORDS, OTHER_ZONE, Some((TYPES, "A"))), ("route53:DeleteHostedZone", ZONE, None)],
    },
    Expected {
        file: "external-secrets.yaml",
        binding: "secrets",
        allowed: &[(
            "secretsmanager:GetSecretValue",
            "arn:aws:secretsmanager:eu-central-1:111122223333:secret:shop/db-AbCdEf",
            None,
        )],
        refused: &[
            (
                "secretsmanager:GetSecretValue",
                "arn:aws:secretsmanager:eu-central-1:111122223333:secret:bank/db-AbCdEf",
                None,
            ),
            (
                "secretsmanager:PutSecretValue",
                "arn:aws:secretsmanager:eu-central-1:111122223333:secret:shop/db-AbCdEf",
                None,
            ),
        ],
    },
    Expected {
        file: "generated-name.yaml",
        binding: "provider-aws-s3",
        allowed: &[("s3:PutObject", "arn:aws:s3:::backups-of-example-com/x", None)],
        refused: &[("s3:PutObject", DOCUMENTS, None), ("iam:CreateRole", "*", None)],
    },
    Expected {
        file: "grants.yaml",
        binding: "browser",
        allowed: &[("s3:GetObject", "arn:aws:s3:::reports-of-example-com/x", None)],
        refused: &[("s3:PutObject", "arn:aws:s3:::reports-of-example-com/x", None)],
    },
    Expected {
        file: "grants.yaml",
        binding: "checkout",
        allowed: &[("dynamodb:PutItem", "arn:aws:dynamodb:eu-central-1:111122223333:table/orders", None)],
        refused: &[("dynamodb:PutItem", "arn:aws:dynamodb:eu-central-1:111122223333:table/ledger", None)],
    },
    Expected {
        file: "grants.yaml",
        binding: "ledger",
        allowed: &[("sqs:SendMessage", "arn:aws:sqs:eu-central-1:111122223333:ledger", None)],
        refused: &[("sqs:PurgeQueue", "arn:aws:sqs:eu-central-1:111122223333:ledger", None)],
    },
    Expected { file: "grants.yaml", binding: "nightly", allowed: READS, refused: WRITES },
    Expected {
        file: "load-balancer-controller.yaml",
        binding: "aws-load-balancer-controller",
        allowed: &[],
        refused: &[],
    },
    Expected { file: "new-role.yaml", binding: "app", allowed: READS, refused: WRITES },
    Expected { file: "other-account.yaml", binding: "archiver", allowed: &[], refused: &[] },
    Expected { file: "release.yaml", binding: "exporter", allowed: READS, refused: WRITES },
    Expected { file: "report-only.yaml", binding: "auditor", allowed: READS, refused: WRITES },
    Expected { file: "several-clusters.yaml", binding: "collector", allowed: &[], refused: &[] },
    Expected {
        file: "vault-kms.yaml",
        binding: "vault",
        allowed: &[("kms:Decrypt", KEY, None), ("kms:Encrypt", KEY, None), ("kms:DescribeKey", KEY, None)],
        refused: &[("kms:Decrypt", OTHER_KEY, None), ("kms:ScheduleKeyDeletion", KEY, None)],
    },
    Expected {
        file: "velero.yaml",
        binding: "velero",
        allowed: &[
            ("s3:PutObject", "arn:aws:s3:::velero-of-example-com/backups/daily/x", None),
            ("s3:DeleteObject", "arn:aws:s3:::velero-of-example-com/backups/daily/x", None),
            ("s3:ListBucket", "arn:aws:s3:::velero-of-example-com", None),
        ],
        refused: &[
            ("s3:GetObject", "arn:aws:s3:::backups-of-example-com/orders/wals/1", None),
            ("ec2:DeleteSnapshot", "*", None),
        ],
    },
];

/// What the managed policy `reports` allows, and what it does not.
const READS: &[Request] = &[("s3:GetObject", "arn:aws:s3:::reports-of-example-com/2026/01.csv", None)];
const WRITES: &[Request] = &[
    ("s3:PutObject", "arn:aws:s3:::reports-of-example-com/2026/01.csv", None),
    ("s3:GetObject", "arn:aws:s3:::backups-of-example-com/x", None),
];
