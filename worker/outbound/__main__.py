from worker.outbound.main import run

if __name__ == "__main__":  # each spawned child imports this module, too
    run()
