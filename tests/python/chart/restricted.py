"""The pod security standards, policy "restricted" with all of "baseline", control by control, as
https://kubernetes.io/docs/concepts/security/pod-security-standards/ has them."""

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}


def violations(pod):
    """What the policy forbids in this pod."""
    return [*_of_pod(pod), *(wrong for c in _containers(pod) for wrong in _of_container(pod, c))]


def _containers(pod):
    return [c for key in ("containers", "initContainers", "ephemeralContainers")
            for c in pod.get(key, [])]


def _of_pod(pod):
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"host namespaces: {key}"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if "hostPath" in kinds:
            yield "hostPath volumes"
        if not kinds <= RESTRICTED_VOLUMES:
            yield f"volume types: {sorted(kinds - RESTRICTED_VOLUMES)}"
    for sysctl in pod.get("securityContext", {}).get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctls: {sysctl['name']}"
    if pod.get("securityContext", {}).get("runAsUser") == 0:
        yield "running as non-root user: pod"


def _of_container(pod, container):
    name = container["name"]
    of_pod, own = pod.get("securityContext", {}), container.get("securityContext", {})

    def effective(key):
        return own.get(key, of_pod.get(key))

    if any(context.get("windowsOptions", {}).get("hostProcess") for context in (of_pod, own)):
        yield f"HostProcess: {name}"
    if own.get("privileged"):
        yield f"privileged: {name}"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"privilege escalation: {name}"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"capabilities: {name} does not drop ALL"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities: {name} adds some"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"host ports: {name}"
    if own.get("procMount", "Default") != "Default":
        yield f"/proc mount type: {name}"
    if effective("runAsNonRoot") is not True:
        yield f"running as non-root: {name}"
    if effective("runAsUser") == 0:
        yield f"running as non-root user: {name}"
    if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"seccomp: {name}"
    armor = (effective("appArmorProfile") or {}).get("type", "RuntimeDefault")
    if armor not in ("RuntimeDefault", "Localhost"):
        yield f"AppArmor: {name}"
    selinux = effective("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"SELinux: {name}"
    probes = [container.get(key, {}) for key in ("livenessProbe", "readinessProbe", "startupProbe")]
    hooks = container.get("lifecycle", {}).values()
    for handler in [*probes, *hooks]:
        if any(handler.get(key, {}).get("host") for key in ("httpGet", "tcpSocket")):
            yield f"host probes and lifecycle hooks: {name}"
