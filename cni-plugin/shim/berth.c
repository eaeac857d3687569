/* berth: the CNI IPAM plugin that main plugins (macvlan, bridge, ...) execute. It decides nothing: it relays
 * the CNI_* environment and stdin to the node agent over a unix socket and prints the answer. Static, since a
 * host may have no libc, Python or PATH. Alone it can answer VERSION; keep a DEL on disk, where the agent
 * finds it later; and say "agent away" in the words of CNI (code 11; STATUS: 50).
 *
 *   request  "BRT1"  env length  stdin length   env (KEY=VALUE\0 ...)  stdin     integers: big-endian u32
 *   reply    "BRT1"  exit code   stdout length  stdout          the same in every version of the request
 *   ack      "A"     ADD only: all of the answer is written. Without it the agent takes the address back.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAGIC = 0x42525431 /* "BRT1" */ };
enum { ENV_MAX = 64 << 10, STDIN_MAX = 1 << 20, REPLY_MAX = 1 << 20, SPOOL_MAX = 4096, PIPE_ATOM = 4096 };
struct header { uint32_t magic, first, second; };
static struct { struct header head; char body[ENV_MAX + STDIN_MAX + 8]; } request; /* NULs at its end */
static struct { struct header head; char body[REPLY_MAX]; } reply;
static size_t env_size, stdin_size;
static char agent_socket[sizeof ((struct sockaddr_un *)0)->sun_path] = "/run/berth/berth.sock";
static char cni_version[64] = "1.1.0"; /* replaced by the configuration's own */
static long long deadline;             /* of the whole call, in milliseconds since boot */
static const char *step = "connect";   /* what was being done when errno was set: for `details` */

static bool is(const char *text, const char *other) { return strcmp(text, other) == 0; }
static const char *variable(const char *name) { return getenv(name) ? getenv(name) : ""; }

/* ---- JSON: enough to find a member. A malformed document names nothing; to refuse it is the agent's job. */
/* Not strspn: zig's measures the whole rest first, which makes a long document take minutes. */
static const char *past(const char *at, const char *set) { while (*at && strchr(set, *at)) at++; return at; }
static const char *space(const char *at) { return past(at, " \t\r\n"); }

/* Decodes the string at `at` and returns what follows it, or NULL. A value that does not fit, or that has an
 * escape for NUL or beyond ASCII, becomes "": it is refused, never cut to some other path. */
static const char *string(const char *at, char *out, size_t room) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t", hex[] = "0123456789abcdefABCDEF";
    size_t used = 0;
    bool fits = true;
    if (*at++ != '"') return NULL;
    for (unsigned char c; (c = (unsigned char)*at++) != '"';) {
        if (c < ' ') return NULL; /* the end of the text, too */
        if (c == '\\' && *at == 'u') {
            const char digits[] = {at[1], at[2], at[3], at[4], '\0'};
            if (strspn(digits, hex) < 4) return NULL;
            c = strtol(digits, NULL, 16) < 0x80 ? (unsigned char)strtol(digits, NULL, 16) : '\0';
            at += 5;
        } else if (c == '\\') {
            const char *kind = *at ? strchr(names, *at++) : NULL;
            if (!kind) return NULL;
            c = (unsigned char)meant[kind - names];
        }
        fits = fits && c && used + 1 < room;
        if (fits) out[used++] = (char)c;
    }
    out[fits ? used : 0] = '\0';
    return at;
}

/* What follows the value at `at`, or NULL. Counts brackets instead of recursing: depth costs no stack. */
static const char *skip_value(const char *at) {
    for (int depth = 0;;) {
        const char *start = at;
        if (*at == '"') at = string(at, (char[1]){0}, 1);
        else if (*at && strchr("{[", *at)) depth++, at++;
        else if (*at && strchr("}]", *at)) depth--, at++;
        else while (*at && !strchr(",:[]{}\" \t\r\n", *at)) at++;
        if (!at || at == start || depth < 0) return NULL;
        if (depth == 0) return at;
        at = past(at, ",: \t\r\n");
    }
}

/* The value of `key` in the object at `at`, never in a deeper one; of two the last, as JSON libraries do. */
static const char *member(const char *at, const char *key) {
    const char *found = NULL;
    char name[16], before = '{';
    for (at = space(at); *at == before; at = space(at)) {
        at = space(at + 1);
        if (before == '{' && *at == '}') return NULL;
        before = ',';
        if (!(at = string(at, name, sizeof name))) return NULL;
        if (*(at = space(at)) != ':') return NULL;
        at = space(at + 1);
        if (is(name, key)) found = at;
        if (!(at = skip_value(at))) return NULL;
    }
    return *at == '}' ? found : NULL;
}

/* Takes cniVersion and ipam.socket from the configuration; false when that can't be a socket. */
static bool read_configuration(const char *text) {
    const char *version = member(text, "cniVersion"), *ipam = member(text, "ipam");
    const char *path = ipam ? member(ipam, "socket") : NULL;
    if (version) string(version, cni_version, sizeof cni_version);
    if (!*cni_version) strcpy(cni_version, "1.1.0");
    if (path) string(path, agent_socket, sizeof agent_socket); /* not a string: the agent complains */
    return agent_socket[0] == '/';
}

/* ---- Input and output, all of it under the deadline of the call */
static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static bool await(int fd, short events) {
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        long long left = deadline - now();
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n == 0) errno = ETIMEDOUT;
        if (n >= 0 || errno != EINTR) return n > 0;
    }
}

static ssize_t read_some(int fd, char *into, size_t room) {
    ssize_t n = -1;
    while (await(fd, POLLIN) && (n = read(fd, into, room)) < 0 && (errno == EINTR || errno == EAGAIN)) {}
    return n;
}

static ssize_t read_all(int fd, char *into, size_t room) {
    size_t have = 0;
    for (ssize_t n = 1; n && have < room; have += (size_t)n)
        if ((n = read_some(fd, into + have, room - have)) < 0) return -1;
    return (ssize_t)have;
}

/* In pieces that a ready pipe takes whole: a larger write would block, past the deadline. */
static bool write_all(int fd, const void *from, size_t size) {
    const char *at = from;
    while (size && await(fd, POLLOUT)) {
        ssize_t n = write(fd, at, size < PIPE_ATOM ? size : PIPE_ATOM);
        if (n < 0 && errno != EINTR && errno != EAGAIN) return false;
        if (n > 0) at += n, size -= (size_t)n;
    }
    return size == 0;
}

/* Whatever came in, what goes out is valid JSON: plain ASCII, and "?" for anything else. */
static void quote(const char *text, char *out, size_t room) {
    size_t used = 1;
    for (*out = '"'; *text && used + 4 < room; text++) {
        if (*text == '"' || *text == '\\') out[used++] = '\\';
        out[used++] = *text < ' ' || *text > '~' ? '?' : *text;
    }
    memcpy(out + used, "\"", 2);
}

static int fail(int code, const char *message, const char *details) {
    char a[sizeof cni_version * 2 + 8], b[1024], c[1024];
    quote(cni_version, a, sizeof a);
    quote(message, b, sizeof b);
    quote(details, c, sizeof c);
    return dprintf(1, "{\"cniVersion\":%s,\"code\":%d,\"msg\":%s,\"details\":%s}\n", a, code, b, c), 1;
}

static int answer_version(void) {
    static const char supported[] = "[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]";
    char version[sizeof cni_version * 2 + 8];
    deadline = now() + 100; /* a caller may never close stdin */
    for (ssize_t n = 1; n > 0 && !member(request.body, "cniVersion"); stdin_size += n > 0 ? (size_t)n : 0)
        n = read_some(0, request.body + stdin_size, STDIN_MAX - stdin_size);
    read_configuration(request.body);
    quote(cni_version, version, sizeof version);
    return dprintf(1, "{\"cniVersion\":%s,\"supportedVersions\":%s}\n", version, supported) < 0;
}

/* ---- The agent, and the spool for when it is away */
/* Sends the request and reads the whole reply. The connection, still open, or -1 with `step` and errno. */
static int ask_agent(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* connect waits while the agent's queue is full: without a limit (and zero would be none) for ever */
    long long left = deadline > now() ? deadline - now() : 0;
    struct timeval wait = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 + 1};
    strcpy(address.sun_path, agent_socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait)) return -1;
    while (connect(fd, (struct sockaddr *)&address, sizeof address))
        if (errno != EINTR) return -1;
    step = "send the request";
    if (!write_all(fd, &request, sizeof request.head + env_size + stdin_size)) return -1;
    step = "read the answer";
    errno = EPROTO; /* what a reply that is cut short or malformed counts as */
    if (read_all(fd, (char *)&reply, sizeof reply.head) != sizeof reply.head) return -1;
    size_t size = ntohl(reply.head.second);
    /* 255: an exit code has 8 bits, and 256 would become success */
    if (ntohl(reply.head.magic) != MAGIC || ntohl(reply.head.first) > 255 || size > REPLY_MAX) return -1;
    return read_all(fd, reply.body, size) == (ssize_t)size ? fd : -1;
}

static uint64_t fnv1a(uint64_t hash, const char *at, size_t size) {
    while (size--) hash = (hash ^ (unsigned char)*at++) * 0x100000001B3;
    return hash;
}

/* Keeps the DEL such that it survives a crash at any point: it is there whole, or this returns false. */
static bool spool(void) {
    char path[sizeof agent_socket + 8], name[200], temporary[64];
    const char *id = variable("CNI_CONTAINERID"), *ifname = variable("CNI_IFNAME");
    /* One name for one attachment. The hash covers what the readable part cuts or replaces. */
    uint64_t hash = fnv1a(fnv1a(0xCBF29CE484222325, id, strlen(id) + 1), ifname, strlen(ifname) + 1);
    hash = fnv1a(hash, request.body + env_size, stdin_size);
    snprintf(name, sizeof name, "%.128s-%.16s-%016llx", id, ifname, (unsigned long long)hash);
    for (char *c = name; *c; c++) /* neither a slash nor a dot in front */
        if (!strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-", *c)) *c = '_';
    snprintf(temporary, sizeof temporary, ".tmp-%d-%lld", (int)getpid(), now());
    step = "open the spool folder";
    snprintf(path, sizeof path, "%.*s", (int)(strrchr(agent_socket, '/') - agent_socket), agent_socket);
    mkdir(path, 0755); /* after a reboot /run is empty, and the agent not there yet */
    snprintf(path, sizeof path, "%s.spool", agent_socket);
    DIR *folder = mkdir(path, 0700) == 0 || errno == EEXIST ? opendir(path) : NULL;
    if (!folder) return false;
    int count = -2; /* without . and .. */
    while (readdir(folder)) count++;
    step = "the spool is full";
    errno = ENOSPC;
    if (count >= SPOOL_MAX) return false;
    step = "write into the spool folder";
    int in = dirfd(folder), fd = openat(in, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    bool whole = write_all(fd, &request, sizeof request.head + env_size + stdin_size) && fsync(fd) == 0;
    if (whole && renameat(in, temporary, in, name) == 0) return fsync(in) == 0;
    int why = errno;
    return unlinkat(in, temporary, 0), errno = why, false;
}

static int agent_away(const char *command) {
    char message[512], details[256];
    int used = snprintf(details, sizeof details, "%s: %s", step, strerror(errno));
    static const char away[] = "no answer from the berth agent at %s: is the agent running on this node?";
    snprintf(message, sizeof message, away, agent_socket);
    if (is(command, "STATUS")) return fail(50, message, details);
    if (is(command, "ADD") || is(command, "CHECK") || is(command, "GC")) return fail(11, message, details);
    if (!is(command, "DEL")) return fail(4, "CNI_COMMAND has a value that CNI does not know", command);
    deadline = now() + 5000;
    if (spool()) return 0;
    snprintf(details + used, sizeof details - (size_t)used, "; keep it: %s: %s", step, strerror(errno));
    return fail(11, message, details);
}

/* Puts in when it was sent (by the clock of processes' starts) and the CNI_* variables; false if too much. */
static bool gather_environment(void) {
    env_size = (size_t)snprintf(request.body, ENV_MAX, "CNI_BERTH_BOOTTIME=%lld", now()) + 1;
    for (char **pair = environ; *pair; pair++) {
        size_t size = strlen(*pair) + 1;
        if (strncmp(*pair, "CNI_", 4) || !strchr(*pair, '=')) continue;
        if (env_size + size > ENV_MAX) return false;
        memcpy(request.body + env_size, *pair, size), env_size += size;
    }
    return true;
}

int main(void) {
    const char *command = variable("CNI_COMMAND");
    /* A killed caller reads no answer: die with it, and the agent sees the connection end. The signal comes
     * when the caller's thread ends; callers wait in it. One dead before this shows as EPIPE on stdout. */
    pid_t caller = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != caller) return 1;
    signal(SIGPIPE, SIG_IGN);
    /* A closed stdout would lend its number to the next file opened, and the answer would go there. */
    for (int spare = 0; spare >= 0 && spare <= 2;) spare = open("/", O_PATH | O_CLOEXEC);
    if (!*command) /* as the CNI library does: said on stderr, and no failure */
        return dprintf(2, "Berth CNI IPAM plugin " BERTH_VERSION "\n"
                          "CNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"), 0;
    if (is(command, "VERSION")) return answer_version();
    deadline = now() + (is(command, "ADD") ? 65000 : is(command, "STATUS") ? 5000 : 30000);
    bool env_fits = gather_environment();
    ssize_t length = read_all(0, request.body + env_size, STDIN_MAX + 1);
    if (length < 0) return fail(5, "the network configuration could not be read from stdin", strerror(errno));
    stdin_size = (size_t)length;
    bool usable = read_configuration(request.body + env_size);
    if (!env_fits) return fail(4, "the CNI_* variables together are larger than 64 KiB", "");
    if (stdin_size > STDIN_MAX) return fail(7, "the network configuration on stdin is larger than 1 MiB", "");
    if (!usable) return fail(7, "ipam.socket must be an absolute path of at most 107 plain bytes", "");
    request.head = (struct header){htonl(MAGIC), htonl((uint32_t)env_size), htonl((uint32_t)stdin_size)};
    int agent = ask_agent();
    if (agent < 0) return agent_away(command);
    int code = (int)ntohl(reply.head.first);
    if (!write_all(1, reply.body, ntohl(reply.head.second))) return code ? code : 1;
    /* Success only with the ack under way: an agent that no longer waits has taken the address back. */
    return !is(command, "ADD") || write_all(agent, "A", 1) || code ? code : 1;
}
