"""Questions of lesson 05, TLS."""

from servicelab.quizzes import Answer, Quiz

QUIZZES = {
    "05.what_is_secret": Quiz(
        "`nginx.crt` and `nginx.key`: which of the two may everybody see?",
        [
            Answer("Neither", "The server shows its certificate to everyone who connects. There is no secret in it."),
            Answer("The certificate", "Right: it holds names, dates and the *public* key. Clients must see it.", right=True),
            Answer("The key", "Whoever has the key can pose as the server. It leaves the server's side never."),
            Answer("Both", "With the key anybody can pose as the server, and no client would notice."),
        ],
    ),
    "05.base64": Quiz(
        "In the Secret, key and certificate are written in base64. Why?",
        [
            Answer("It encrypts them", "Anybody can decode base64, without a password. The next cell does."),
            Answer(
                "So that any bytes fit into a YAML or JSON text",
                "Right: it is a way of writing, and no protection. Who may read Secrets is decided by access rights.",
                right=True,
            ),
            Answer("To save space", "Base64 takes a third *more* space."),
        ],
    ),
    "05.why_k": Quiz(
        "You ask a pod by its address: `curl https://10.244.…`. The server has a certificate. Will curl be content?",
        [
            Answer("Yes: it is encrypted", "Encrypted, but with whom? curl wants to know that too, before it sends anything."),
            Answer(
                "No: it neither knows the signer nor finds the address in the certificate",
                "Right: two reasons, and it tells you the first that it meets.",
                right=True,
            ),
            Answer("Yes, since pods in a cluster trust each other", "TLS knows nothing of clusters. Trust has to be given explicitly."),
        ],
    ),
    "05.common_name": Quiz(
        "The document's command makes a certificate with the subject `CN=my-nginx` and no other name. A client trusts it, and asks for "
        "`my-nginx`. "
        "What happens today?",
        [
            Answer("Every client accepts it", "It is in the *subject*, a place given up for names in 2000 (RFC 2818)."),
            Answer("Every client refuses it", "Some are kinder than that. Look at curl in the next cell."),
            Answer(
                "It depends on the client",
                "Right: curl still falls back to the CN. Go, and with it most of Kubernetes, browsers and Python's libraries don't.",
                right=True,
            ),
        ],
    ),
    "05.rotate": Quiz(
        "You replace the Secret. nginx runs, and the Secret is mounted into its pod. When do clients meet the new certificate?",
        [
            Answer("At once", "The Secret changes at once, the file in the pod a little later. And who reads the file?"),
            Answer("Never, without a new pod", "The mounted file does follow its Secret. (Only a `subPath` mount never does.)"),
            Answer(
                "When the file has followed *and* nginx reads it again",
                "Right: two steps. The kubelet does the first; the second is up to the program.",
                right=True,
            ),
        ],
    ),
}
