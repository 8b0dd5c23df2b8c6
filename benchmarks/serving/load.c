/* A load generator for HTTP/1.1 that checks every answer.
 *
 * load HOST PORT REQUESTS CONNECTIONS PHASES TIMEOUT [fresh]
 *
 *   REQUESTS     file of request variants and what their answers must hold (written by load.py, format below)
 *   CONNECTIONS  kept alive, one request at a time on each, so an answer belongs to the request sent on its connection
 *   PHASES       RATE:SECONDS,...   RATE 0: closed loop (every connection asks again at once); else open loop: requests
 *                come at random (Poisson) so many a second, whatever the server does; one that finds no free
 *                connection waits for one, and its latency counts from when it was due
 *   TIMEOUT      seconds after which a request counts as unanswered
 *   fresh        a new connection for every request
 *
 * One thread, epoll. Results go to standard output as JSON, one object for each phase and one for
 * what came after the last; an answer counts in the phase in which it came. REQUESTS is little endian: u32 variants; each: u32 n, n bytes of request; u32 kind
 * (0 nothing, 1 numbers in the text after an anchor, 2 the last float32 values of the body), u32 n, n bytes of anchor,
 * u32 n, n doubles, double tolerance.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_PHASES 32            /* one more is for what comes after the last */
#define SUB 64                   /* buckets in each power of two: 1.6 % apart */
#define BUCKETS (40 * SUB)       /* of nanoseconds, up to 2^40 */
#define SLICE 100000000ull       /* the timeline's step: 0.1 s */
#define MAX_SLICES 6000
#define BACKLOG (1 << 20)
#define WAIT_FREE 1000000000ull  /* a request that finds no free connection for so long is not sent */
#define TICK 100000ull           /* open loop: requests due within 0.1 ms go out together */

typedef struct { char *request; uint32_t size; uint32_t kind; char *anchor; uint32_t anchor_size;
                 uint32_t count; double *numbers; double tolerance; } Variant;
typedef struct { uint64_t count[BUCKETS]; uint64_t total, max; double sum; } Histogram;
typedef struct { double rate, seconds; uint64_t begin, end;
                 uint64_t due, sent, ok, wrong, refused, failed, broken, unanswered, unsent, retry_after;
                 uint64_t status[600]; Histogram latency, from_due, refusal; double cpu; } Phase;
typedef struct { int fd; int state; int variant; uint32_t written; char *buffer; size_t used, room;
                 uint64_t began, due; } Connection;
enum { CLOSED, CONNECTING, IDLE, WRITING, READING };

static Variant *variants; static uint32_t variant_count;
static Phase phases[MAX_PHASES + 1]; static int phase_count, phase_now;
static Connection *connections; static int connection_count;
static int *idle; static int idle_head, idle_size;
static uint64_t backlog[BACKLOG]; static uint32_t backlog_head, backlog_tail;
static struct { uint32_t ok, refused, other; uint64_t slowest; } timeline[MAX_SLICES];
static uint64_t start, timeout_ns; static int epoll_fd, fresh, closed_loop, ended;
static struct sockaddr_in address; static char sample[2048]; static uint64_t random_state = 88172645463325252ull;

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static uint64_t dice(void) { random_state ^= random_state << 13; random_state ^= random_state >> 7; random_state ^= random_state << 17; return random_state; }
static double uniform(void) { return ((dice() >> 11) + 1) * (1.0 / 9007199254740993.0); }
static void die(const char *what) { fprintf(stderr, "load: %s: %s\n", what, strerror(errno)); exit(2); }
static double cpu_seconds(void) { struct rusage u; getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6; }

static int bucket(uint64_t ns) {
    if (ns < SUB) return (int)ns;
    int high = 63 - __builtin_clzll(ns);
    int place = (high - 5) * SUB + (int)((ns >> (high - 6)) & (SUB - 1));
    return place < BUCKETS ? place : BUCKETS - 1;
}
static double bucket_value(int place) {
    if (place < SUB) return place;
    int high = place / SUB + 5;
    return ldexp(1.0 + (place % SUB + 0.5) / SUB, high);
}
static void record(Histogram *h, uint64_t ns) { h->count[bucket(ns)]++; h->total++; h->sum += ns; if (ns > h->max) h->max = ns; }
static double percentile(Histogram *h, double share) {
    uint64_t wanted = (uint64_t)ceil(share * h->total), seen = 0;
    for (int i = 0; i < BUCKETS; i++) if ((seen += h->count[i]) >= wanted && seen) return fmin(bucket_value(i), h->max) / 1e6;
    return 0;
}

static uint32_t word(FILE *f) { uint32_t v; if (fread(&v, 4, 1, f) != 1) die("reading requests"); return v; }
static char *block(FILE *f, uint32_t size, uint32_t unit) {
    char *data = calloc((size_t)size * unit + 1, 1);
    if (size && fread(data, unit, size, f) != size) die("reading requests");
    return data;
}
static void read_variants(const char *path) {
    FILE *f = fopen(path, "rb"); if (!f) die(path);
    variant_count = word(f); variants = calloc(variant_count, sizeof *variants);
    for (uint32_t i = 0; i < variant_count; i++) {
        Variant *v = &variants[i];
        v->size = word(f); v->request = block(f, v->size, 1);
        v->kind = word(f); v->anchor_size = word(f); v->anchor = block(f, v->anchor_size, 1);
        v->count = word(f); v->numbers = (double *)block(f, v->count, 8);
        if (fread(&v->tolerance, 8, 1, f) != 1) die("reading requests");
    }
    fclose(f);
}

/* Say whether a body (NUL-terminated) is the answer to a variant. */
static int right(Variant *v, char *body, size_t size) {
    if (v->kind == 0) return 1;
    if (v->kind == 2) {
        if (size < 4ul * v->count) return 0;
        for (uint32_t i = 0; i < v->count; i++) {
            float value; memcpy(&value, body + size - 4ul * (v->count - i), 4);
            if (!(fabs(value - v->numbers[i]) <= v->tolerance)) return 0;
        }
        return 1;
    }
    char *at = memmem(body, size, v->anchor, v->anchor_size);
    if (!at) return 0;
    at += v->anchor_size;
    for (uint32_t i = 0; i < v->count; i++) {
        while (*at && *at != ']' && *at != '}' && *at != '-' && (*at < '0' || *at > '9')) {
            if (*at == '"') for (at++; *at && *at != '"'; at++) ;  /* a key */
            if (*at) at++;
        }
        char *end; double value = strtod(at, &end);
        if (end == at || !(fabs(value - v->numbers[i]) <= v->tolerance)) return 0;
        at = end;
    }
    return 1;
}

static void watch(Connection *c, uint32_t events, int how) {
    struct epoll_event e = { .events = events, .data.u32 = (uint32_t)(c - connections) };
    if (epoll_ctl(epoll_fd, how, c->fd, &e)) die("epoll_ctl");
}
static void push_idle(Connection *c) { c->state = IDLE; idle[(idle_head + idle_size++) % connection_count] = c - connections; }
static void slice(uint64_t at, int kind, uint64_t took) {
    uint64_t place = (at - start) / SLICE;
    if (place >= MAX_SLICES) return;
    if (kind == 0) timeline[place].ok++; else if (kind == 1) timeline[place].refused++; else timeline[place].other++;
    if (kind == 0 && took > timeline[place].slowest) timeline[place].slowest = took;
}

static void connect_again(Connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int on = 1; setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->used = 0;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close(c->fd); c->fd = -1; c->state = CLOSED; return;  /* tried again by the timer */
    }
    c->state = CONNECTING; watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}
static void hang_up(Connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1; c->state = CLOSED;
}

static void write_more(Connection *c) {
    Variant *v = &variants[c->variant];
    while (c->written < v->size) {
        ssize_t n = send(c->fd, v->request + c->written, v->size - c->written, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) { if (c->state != WRITING) { c->state = WRITING; watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD); } }
            return;  /* another error shows when reading: an early answer may be there to read */
        }
        c->written += n;
    }
    if (c->state == WRITING) watch(c, EPOLLIN, EPOLL_CTL_MOD);
    c->state = READING;
}
static void ask(Connection *c, uint64_t due) {
    c->variant = dice() % variant_count; c->written = 0; c->used = 0; c->began = now(); c->due = due ? due : c->began;
    c->state = READING; phases[phase_now].sent++;
    write_more(c);
}
static void dispatch(uint64_t at) {
    while (idle_size) {
        uint64_t due = 0;
        if (!closed_loop) {
            while (backlog_head != backlog_tail && backlog[backlog_head % BACKLOG] + WAIT_FREE < at) { phases[phase_now].unsent++; backlog_head++; }
            if (backlog_head == backlog_tail) return;
            due = backlog[backlog_head++ % BACKLOG];
        } else if (ended) return;
        Connection *c = &connections[idle[idle_head]];
        idle_head = (idle_head + 1) % connection_count; idle_size--;
        ask(c, due);
    }
}

/* One request is over. kind: 0 right, 1 refused, 2 wrong, 3 another status, 4 the connection broke, 5 no answer in time */
static void over(Connection *c, int kind, int status) {
    uint64_t at = now(), took = at - c->began; Phase *p = &phases[phase_now];
    if (status) p->status[status < 600 ? status : 0]++;
    if (kind == 0) { p->ok++; record(&p->latency, took); record(&p->from_due, at - c->due); }
    else if (kind == 1) { p->refused++; record(&p->refusal, took); }
    else if (kind == 2) p->wrong++; else if (kind == 3) p->failed++; else if (kind == 4) p->broken++; else p->unanswered++;
    slice(at, kind, took);
    if (kind >= 2 && !sample[0]) {
        snprintf(sample, sizeof sample, "%s", kind == 4 ? "(connection broken)" : kind == 5 ? "(no answer)" : c->buffer);
        for (char *s = sample; *s; s++) if (*s == '"' || *s == '\\' || (unsigned char)*s < 32 || (unsigned char)*s > 126) *s = '\'';
    }
}

/* Find the end of a chunked body and join its chunks in place. 1: whole, 0: not yet, -1: malformed. */
static int join_chunks(char *body, size_t size, size_t *joined) {
    size_t at = 0, out = 0; int done = 0;
    for (int pass = 0; pass < 2; pass++) {       /* first look whether all is there, then move */
        for (at = out = 0, done = 0; !done;) {
            char *line = memmem(body + at, size - at, "\r\n", 2), *end;
            if (!line) return 0;
            unsigned long chunk = strtoul(body + at, &end, 16);
            if (end == body + at) return -1;
            size_t data = line + 2 - body;
            if (data + chunk + 2 > size) return 0;
            if (pass) memmove(body + out, body + data, chunk);
            out += chunk; at = data + chunk + 2; done = !chunk;
            if (pass && done) { body[out] = 0; *joined = out; return 1; }
        }
    }
    return 1;
}

static void read_more(Connection *c) {
    int gone = 0;
    for (;;) {
        if (c->room - c->used < 65536) { c->room = c->room * 2 + 131072; c->buffer = realloc(c->buffer, c->room); }
        size_t space = c->room - c->used - 1;
        ssize_t n = recv(c->fd, c->buffer + c->used, space, 0);
        if (n > 0) { c->used += n; if ((size_t)n < space) break; continue; }
        if (n < 0 && errno == EAGAIN) break;
        gone = 1; break;
    }
    if (c->state == IDLE) {                       /* closed by the server between requests, or an answer to nothing */
        if (c->used) { over(c, 2, 0); gone = 1; }
        if (gone) {
            int place = 0;
            for (int i = 0; i < idle_size; i++) { int which = idle[(idle_head + i) % connection_count];
                if (which != c - connections) idle[(idle_head + place++) % connection_count] = which; }
            idle_size = place; hang_up(c); connect_again(c);
        }
        return;
    }
    c->buffer[c->used] = 0;
    char *body = c->used ? strstr(c->buffer, "\r\n\r\n") : NULL;
    int whole = 0, status = 0, closes = 0; size_t size = 0, rest = 0;
    if (body) {
        *body = 0; body += 4; rest = c->used - (body - c->buffer);
        status = c->used > 12 ? atoi(c->buffer + 9) : 0;
        char *length = strcasestr(c->buffer, "\r\ncontent-length:"), *close_header = strcasestr(c->buffer, "\r\nconnection: close");
        closes = close_header != NULL;
        if (strcasestr(c->buffer, "\r\ntransfer-encoding: chunked")) {
            whole = join_chunks(body, rest, &size); if (whole < 0) { gone = 1; whole = 0; }
        } else if (length) { size = strtoul(length + 17, NULL, 10); whole = rest >= size; if (whole && rest > size) status = -1; }
        else if (gone) { size = rest; whole = 1; }
        if (whole && (status == 429 || status == 503) && strcasestr(c->buffer, "\r\nretry-after:")) phases[phase_now].retry_after++;
        body[-4] = '\r';
    }
    if (!whole && !gone) return;
    if (!whole) over(c, 4, 0);
    else if (status == 429 || status == 503) over(c, 1, status);
    else if (status == 200) over(c, right(&variants[c->variant], body, size) ? 0 : 2, status);
    else over(c, status < 0 ? 2 : 3, status < 0 ? 0 : status);
    if (gone || closes || fresh || c->written < variants[c->variant].size) { hang_up(c); connect_again(c); }
    else push_idle(c);
}

static void print_histogram(const char *name, Histogram *h) {
    printf(", \"%s\": {\"n\": %lu, \"mean\": %.4f, \"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"p999\": %.4f, \"max\": %.4f}", name, h->total,
           h->total ? h->sum / h->total / 1e6 : 0, percentile(h, .5), percentile(h, .9), percentile(h, .99), percentile(h, .999), h->max / 1e6);
}
static void print_results(void) {
    printf("{\"phases\": [");
    for (int i = 0; i <= phase_count; i++) {
        Phase *p = &phases[i];
        printf("%s{\"rate\": %g, \"seconds\": %.6f, \"due\": %lu, \"sent\": %lu, \"ok\": %lu, \"wrong\": %lu, \"refused\": %lu, \"failed\": %lu, "
               "\"broken\": %lu, \"unanswered\": %lu, \"unsent\": %lu, \"retry_after\": %lu, \"cpu\": %.4f", i ? ", " : "", p->rate, (p->end - p->begin) / 1e9, p->due,
               p->sent, p->ok, p->wrong, p->refused, p->failed, p->broken, p->unanswered, p->unsent, p->retry_after, p->cpu);
        print_histogram("latency_ms", &p->latency); print_histogram("from_due_ms", &p->from_due); print_histogram("refusal_ms", &p->refusal);
        printf(", \"status\": {"); int first = 1;
        for (int s = 0; s < 600; s++) if (p->status[s]) { printf("%s\"%d\": %lu", first ? "" : ", ", s, p->status[s]); first = 0; }
        printf("}}");
    }
    printf("], \"timeline\": [");
    uint64_t slices = (phases[phase_count - 1].end - start) / SLICE;
    for (uint64_t i = 0; i < slices && i < MAX_SLICES; i++)
        printf("%s[%u, %u, %u, %.2f]", i ? ", " : "", timeline[i].ok, timeline[i].refused, timeline[i].other, timeline[i].slowest / 1e6);
    printf("], \"sample\": \"%s\"}\n", sample);
}

int main(int argc, char **argv) {
    if (argc < 7) { fprintf(stderr, "load HOST PORT REQUESTS CONNECTIONS RATE:SECONDS,... TIMEOUT [fresh]\n"); return 2; }
    address.sin_family = AF_INET; address.sin_port = htons(atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) die("HOST is an IPv4 address");
    read_variants(argv[3]); connection_count = atoi(argv[4]); timeout_ns = atof(argv[6]) * 1e9; fresh = argc > 7;
    for (char *part = strtok(argv[5], ","); part && phase_count < MAX_PHASES; part = strtok(NULL, ","))
        if (sscanf(part, "%lf:%lf", &phases[phase_count].rate, &phases[phase_count].seconds) == 2) phase_count++;
    connections = calloc(connection_count, sizeof *connections); idle = calloc(connection_count, sizeof *idle);
    struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event timer_event = { .events = EPOLLIN, .data.u32 = UINT32_MAX };
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &timer_event);
    for (int i = 0; i < connection_count; i++) connect_again(&connections[i]);
    start = now(); phases[0].begin = start; closed_loop = phases[0].rate == 0;
    uint64_t next_due = start, next_look = start, end = start + phases[0].seconds * 1e9, given_up = 0; double cpu = cpu_seconds();
    struct epoll_event events[256];
    for (;;) {
        uint64_t at = now();
        while (!ended && at >= end) {
            Phase *p = &phases[phase_now]; p->end = end; p->cpu = cpu_seconds() - cpu; cpu += p->cpu;
            p->unsent += backlog_tail - backlog_head; phase_now++; phases[phase_now].begin = end;
            if (phase_now == phase_count) { ended = 1; closed_loop = 1; given_up = at + timeout_ns; break; }
            end += phases[phase_now].seconds * 1e9; next_due = phases[phase_now].begin;
            closed_loop = phases[phase_now].rate == 0; backlog_head = backlog_tail;
        }
        if (ended) phases[phase_now].end = at;
        Phase *p = &phases[phase_now];
        while (!ended && !closed_loop && next_due <= at) {
            p->due++; if (backlog_tail - backlog_head < BACKLOG) backlog[backlog_tail++ % BACKLOG] = next_due; else p->unsent++;
            next_due += -log(uniform()) / p->rate * 1e9;
        }
        dispatch(at);
        if (at >= next_look) {                    /* ten times a second: who waits for too long, who is to connect again */
            next_look = at + 100000000ull;
            for (int i = 0; i < connection_count; i++) {
                Connection *c = &connections[i];
                if ((c->state == READING || c->state == WRITING) && at > c->began + timeout_ns) { over(c, 5, 0); hang_up(c); }
                if (c->state == CLOSED && !ended) connect_again(c);
            }
        }
        if (ended) {
            int waiting = 0;
            for (int i = 0; i < connection_count; i++) waiting += connections[i].state == READING || connections[i].state == WRITING;
            if (!waiting || at > given_up) break;
        }
        uint64_t wake = next_look;
        if (!ended && end < wake) wake = end;
        if (!ended && !closed_loop && next_due < wake) wake = next_due > at + TICK ? next_due : at + TICK;
        struct itimerspec when = { .it_value = { wake / 1000000000ull, wake % 1000000000ull } };
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
        int n = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 == UINT32_MAX) { uint64_t ticks; if (read(timer, &ticks, 8) < 0 && errno != EAGAIN) die("timer"); continue; }
            Connection *c = &connections[events[i].data.u32];
            if (c->fd < 0) continue;
            if (c->state == CONNECTING) {
                int error = 0; socklen_t size = sizeof error; getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
                if (error) { hang_up(c); continue; }
                watch(c, EPOLLIN, EPOLL_CTL_MOD); push_idle(c); continue;
            }
            if (c->state == WRITING && events[i].events & EPOLLOUT) write_more(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_more(c);
        }
    }
    print_results();
    return 0;
}
