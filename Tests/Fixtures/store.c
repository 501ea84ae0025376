// A store in an LMDB database that moves from host to host while records are put and got.
//
//   cc -O2 -pthread store.c -l:liblmdb.a -Wl,--wrap=mmap,--wrap=munmap -o store
//   ./store SOCKET runs | waits
//
// The database lies in a memory file, which LMDB opens by its name in /proc. With MDB_WRITEMAP, LMDB writes only in its
// mapping of the file, and that mapping is what the program hands over: through any other, a page that has not arrived
// would read as zeros. A process that waits needs the mapping before it can open the database. So the
// linker sends LMDB's call of mmap() to this program, which gives LMDB the mapping that was handed over.
//
// What becomes of a transaction that is open at STOP: it is gone at the destination, and continues if the workload
// resumes here. An open transaction is in the heap, which does not move, and no page that it has written belongs to the
// database before its commit. To show that, the store stops only in the middle of a transaction.
#define _GNU_SOURCE
#include "pageferry_client.h"
#include <lmdb.h>
#include <pthread.h>
#include <sys/mman.h>

enum { RECORDS = 20000, BATCH = 16, WORDS = 40, PAGE = 4096 };
static const size_t bytes = 32 << 20;

static uint8_t *memory;  // the mapping of the memory file, which is also LMDB's
static int file;
static MDB_env *env;
static MDB_dbi database;
static uint64_t batches;  // committed; batch b puts the records 16 b to 16 b + 15, modulo RECORDS
static pthread_t worker;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int is_to_stop, is_stopped;

static void say(const char *what, uint64_t number) {
    printf("%s %lu\n", what, number);
    fflush(stdout);
}

static void check(int result, const char *what) {
    if (!result) return;
    fprintf(stderr, "store: %s: %s\n", what, mdb_strerror(result));
    exit(1);
}

// ---- The mapping

void *__real_mmap(void *, size_t, int, int, int, off_t);
int __real_munmap(void *, size_t);

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int descriptor, off_t offset) {
    if (size != bytes || descriptor < 0) return __real_mmap(at, size, protection, flags, descriptor, offset);
    if (!memory) memory = __real_mmap(at, size, protection, flags, descriptor, offset);
    return memory;
}

int __wrap_munmap(void *at, size_t size) { return at == memory ? 0 : __real_munmap(at, size); }

static void open_store(void) {
    char path[64];
    MDB_txn *txn;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    check(mdb_env_create(&env), "mdb_env_create");
    check(mdb_env_set_mapsize(env, bytes), "mdb_env_set_mapsize");
    // The process is the only user of the file, and the file needs no disk.
    unsigned flags = MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOLOCK | MDB_NOSYNC | MDB_NOTLS;
    check(mdb_env_open(env, path, flags, 0600), "mdb_env_open");
    check(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
    check(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &database), "mdb_dbi_open");
    check(mdb_txn_commit(txn), "mdb_txn_commit");
}

// ---- Records

static uint64_t mixed(uint64_t w) {
    w = (w ^ w >> 30) * 0xBF58476D1CE4E5B9;
    w = (w ^ w >> 27) * 0x94D049BB133111EB;
    return w ^ w >> 31;
}

// The key of a record: an odd factor scatters the records over the tree, and no two have the same key.
static uint32_t key_of(uint64_t record) { return (uint32_t)record * 2654435761u; }

// The batch that put a record last, of those that are committed; -1 if none has.
static int64_t last_batch(uint64_t record) {
    uint64_t puts = batches * BATCH;
    if (puts <= record) return -1;
    return (record + (puts - 1 - record) / RECORDS * RECORDS) / BATCH;
}

static void put(MDB_txn *txn, uint64_t batch, int index) {
    uint64_t record = (batch * BATCH + index) % RECORDS, words[WORDS];
    uint32_t key = key_of(record);
    for (int i = 0; i < WORDS; i++) words[i] = mixed(record << 32 ^ batch ^ (uint64_t)i << 56);
    MDB_val k = {sizeof key, &key}, v = {sizeof words, words};
    check(mdb_put(txn, database, &k, &v, 0), "mdb_put");
}

static int holds(const MDB_val *value, uint64_t record) {
    int64_t batch = last_batch(record);
    if (batch < 0 || value->mv_size != WORDS * 8) return 0;
    for (int i = 0; i < WORDS; i++) {
        uint64_t word;
        memcpy(&word, (uint8_t *)value->mv_data + 8 * i, 8);
        if (word != mixed(record << 32 ^ (uint64_t)batch ^ (uint64_t)i << 56)) return 0;
    }
    return 1;
}

// ---- Work

// Whether the store holds a record as the committed batches have left it.
static int is_right(MDB_txn *txn, uint64_t record) {
    uint32_t key = key_of(record);
    MDB_val k = {sizeof key, &key}, v;
    int result = mdb_get(txn, database, &k, &v);
    if (result == MDB_NOTFOUND) return last_batch(record) < 0;
    check(result, "mdb_get");
    return holds(&v, record);
}

static void get_some(void) {
    MDB_txn *txn;
    check(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    for (int i = 0; i < BATCH; i++) {
        uint64_t record = mixed(batches * BATCH + i) % RECORDS;
        if (is_right(txn, record)) continue;
        fprintf(stderr, "store: record %lu is wrong after batch %lu\n", record, batches);
        exit(3);
    }
    mdb_txn_abort(txn);
}

// Stops here if that is asked for, in the middle of a transaction.
static void stop_if_asked(void) {
    pthread_mutex_lock(&lock);
    if (is_to_stop) say("stopped with an open transaction, batch", batches);
    while (is_to_stop) {
        is_stopped = 1;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &lock);
    }
    is_stopped = 0;
    pthread_mutex_unlock(&lock);
}

static void *work(void *unused) {
    (void)unused;
    for (;;) {
        MDB_txn *txn;
        get_some();
        check(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
        for (int i = 0; i < BATCH; i++) {
            if (i == BATCH / 2) stop_if_asked();
            put(txn, batches, i);
        }
        check(mdb_txn_commit(txn), "mdb_txn_commit");
        if (++batches % 2048 == 0) say("committed", batches);
    }
    return NULL;
}

static const char *start(void) { return pthread_create(&worker, NULL, work, NULL) ? "no thread" : NULL; }

// ---- What the agent asks

static const char *set_stop(int value) {
    pthread_mutex_lock(&lock);
    is_to_stop = value;
    pthread_cond_broadcast(&changed);
    while (value && !is_stopped) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static const char *stop(void *unused) { return (void)unused, set_stop(1); }

static const char *save(void *unused, struct pf *p) { return (void)unused, pf_save(p, "batches", &batches, 8); }

static const char *load(void *unused, const char *device, const uint8_t *state, size_t size) {
    (void)unused;
    if (strcmp(device, "batches") || size != 8) return "this program has no such device";
    memcpy(&batches, state, 8);
    return NULL;
}

// Opens the database. LMDB reads its first two pages with pread(), which would find zeros in place of pages that have
// not arrived; touching them first lets them arrive.
static const char *run(void *unused) {
    (void)unused;
    for (int page = 0; page < 2; page++) (void)*(volatile uint8_t *)(memory + page * PAGE);
    open_store();
    // The open transaction had put half of the batch. It is gone if each record is as the batches before have left it.
    MDB_txn *txn;
    check(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    int is_gone = 1;
    for (int i = 0; i < BATCH; i++) is_gone &= is_right(txn, (batches * BATCH + i) % RECORDS);
    mdb_txn_abort(txn);
    if (!is_gone) return "a part of the transaction that was open has arrived";
    say("runs, the open transaction is gone, batch", batches);
    return start();
}

static const char *resume(void *unused) {
    (void)unused;
    say("resumed, batch", batches);
    return set_stop(0);
}

// Walks through the database, which must hold exactly the records of all committed batches.
static const char *verify(void *unused, uint64_t *checked, uint64_t *wrong) {
    (void)unused;
    uint64_t expected = batches * BATCH < RECORDS ? batches * BATCH : RECORDS, found = 0, bad = 0;
    uint32_t inverse = 244002641;  // of the factor in key_of()
    MDB_envinfo info;
    MDB_cursor *cursor;
    MDB_txn *txn;
    MDB_val k, v;
    check(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    check(mdb_cursor_open(txn, database, &cursor), "mdb_cursor_open");
    while (!mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        uint32_t key;
        memcpy(&key, k.mv_data, sizeof key);
        found++;
        bad += !holds(&v, key * inverse);
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    check(mdb_env_info(env, &info), "mdb_env_info");
    *checked = info.me_last_pgno + 1;
    *wrong = bad + (found > expected ? found - expected : expected - found);
    say("records found", found);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3 || (strcmp(argv[2], "runs") && strcmp(argv[2], "waits"))) {
        fprintf(stderr, "usage: store SOCKET runs|waits\n");
        return 2;
    }
    int waits = !strcmp(argv[2], "waits");
    file = memfd_create("store", MFD_CLOEXEC);
    if (file < 0) return perror("store: memfd_create"), 1;
    if (waits) {
        if (ftruncate(file, bytes)) return perror("store: ftruncate"), 1;
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (at == MAP_FAILED) return perror("store: mmap"), 1;
    } else {
        open_store();
        start();
    }
    static const struct pf_program program = {
        .stop = stop, .save = save, .load = load, .run = run, .resume = resume, .verify = verify,
    };
    struct pf p = {.role = waits ? PF_WAITS : PF_RUNS, .abilities = PF_VERIFIES, .name = "store", .count = 1};
    p.region[0] = (struct pf_region){.at = memory, .bytes = bytes, .file = file};
    if (pf_attach(&p, argv[1])) return fprintf(stderr, "store: %s\n", p.error), 1;
    say("attached, batch", batches);
    enum pf_end end = pf_serve(&p, &program, NULL);
    say(end == PF_MOVED ? "moved, batch" : "not moved, batch", batches);
    if (end == PF_MOVED || !p.is_running) return end != PF_MOVED;
    for (;;) pause();
}
