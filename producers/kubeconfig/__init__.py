"""What kubeconfig files say: entries as kubectl reads them, merged, resolved to how a cluster is reached and as whom.

Rules: k8s.io/client-go tools/clientcmd. Nothing here connects to a cluster or runs a command.
"""
